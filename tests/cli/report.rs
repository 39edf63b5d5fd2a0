//! `report`: the page, and that a real browser shows it as it is meant.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::*;

/// A model of twelve layers of real weights, with a name that would be markup.
fn layered() -> Vec<u8> {
    let real = fs::read(REAL_WEIGHTS).unwrap();
    let weights = &real[real.len() - 200_000..];
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    let mut add = |name: &str, dtype: &str, size: usize, bytes: &[u8]| {
        let start = data.len();
        data.extend_from_slice(bytes);
        let name = serde_json::to_string(name).unwrap();
        entries.push(format!(
            "{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{start},{}]}}",
            bytes.len() / size,
            data.len()
        ));
    };
    add("embed_tokens.weight", "BF16", 2, &weights[..120_000]);
    for layer in 0..12 {
        add(&format!("model.layers.{layer}.mlp.up_proj.weight"), "BF16", 2, &weights[layer * 4000..][..100_000]);
        add(&format!("model.layers.{layer}.norm.weight"), "BF16", 2, &weights[layer * 2000..][..2_000]);
    }
    add("<script>alert(1)</script>", "I64", 8, &[0; 80]);
    let mut file = safetensors(&format!("{{{}}}", entries.join(",")), 0);
    file.extend(data);
    file
}

#[test]
fn a_page_stands_for_itself() {
    let scratch = Scratch::new();
    scratch.write("m.safetensors", layered());
    scratch.ok("compress -q m.safetensors");
    let said = scratch.ok("report m.bs -o page.html");
    assert!(said.starts_with("page.html: 26 tensors, a page of "), "{said}");
    let page = String::from_utf8(scratch.read("page.html")).unwrap();
    assert!(page.starts_with("<!doctype html>\n") && page.ends_with("</html>\n"));
    for part in
        ["Size by layer", "Size by kind of tensor", "Ratio over depth", "Bits per weight", "Exponents", "All tensors"]
    {
        assert!(page.contains(part), "{part} is missing");
    }
    for loaded in ["http:", "https:", "src=", "url(", "@import", "<script>alert"] {
        assert!(!page.contains(loaded), "{loaded} is in the page");
    }
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(!page.contains("NaN") && !page.contains("inf%"));
    // Every element that is opened is closed.
    for element in ["section", "div", "svg", "g", "td", "tr", "p", "span", "h2", "h3", "title"] {
        let opened = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
        assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "<{element}>");
    }

    assert_eq!(
        scratch.fails(2, "report m.bs -o page.html").lines().next().unwrap(),
        "bigsmall: page.html: exists already"
    );
    scratch.ok("report -q --force m.bs -o page.html");
    assert_eq!(scratch.names(), ["m.bs", "m.safetensors", "page.html"]);
    let said = scratch.ok("report m.safetensors --title Expected -o expected.html");
    assert!(said.starts_with("expected.html: 26 tensors"), "{said}");
    let page = String::from_utf8(scratch.read("expected.html")).unwrap();
    assert!(page.contains("<h1>Expected</h1>") && page.contains("not compressed yet"));
}

#[test]
fn there_is_a_page_about_everything() {
    let scratch = Scratch::new();
    copy_upstream(&scratch, "default_bf16", "python");
    scratch.write("gguf/m.gguf", gguf_model());
    scratch.write("README", "No model. ".repeat(100));
    scratch.write("empty.safetensors", safetensors("{}", 0));
    for (number, source) in ["python", "gguf", "README", "empty.safetensors"].into_iter().enumerate() {
        scratch.ok(&format!("report -q {source} -o {number}.html"));
    }
    // A difference from a model that is not at hand tells how much changed.
    scratch.write("patch.bs", fs::read(Path::new(UPSTREAM).join("delta/patch.bs")).unwrap());
    scratch.ok("report -q patch.bs -o patch.html");
    let page = String::from_utf8(scratch.read("patch.html")).unwrap();
    assert!(page.contains("stored as the difference from another model") && !page.contains("<h2>Exponents</h2>"));
    scratch.write("cut.bs", &fs::read(Path::new(UPSTREAM).join("default_bf16/model.bs")).unwrap()[..2000]);
    let said = scratch.fails(2, "report cut.bs -o cut.html");
    assert!(said.starts_with("bigsmall: cut.bs: "), "{said}");
    fs::create_dir(scratch.path("nothing")).unwrap();
    assert_eq!(
        scratch.fails(2, "report nothing -o x.html"),
        "bigsmall: nothing: there is no container and no .safetensors or .gguf file in it: nothing to report on\n"
    );
    assert!(!scratch.path("cut.html").exists() && !scratch.path("x.html").exists());
}

/// Runs a headless browser on the page and gives what it says on standard error; with `--dump-dom`, what the page became.
fn browser(scratch: &Scratch, arguments: &[&str]) -> (String, String) {
    let program = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()));
    let program = program.expect("a browser is needed: the package chromium");
    let page = format!("file://{}", scratch.path("page.html").display());
    let profile = format!("--user-data-dir={}", scratch.path("profile").display());
    let mut command = scratch.command(program);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--enable-logging=stderr",
        "--virtual-time-budget=3000",
    ]);
    let output = command.arg(profile).args(arguments).arg(page).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_browser_shows_the_page_without_errors() {
    let scratch = Scratch::new();
    scratch.write("m.safetensors", layered());
    scratch.ok("compress -q m.safetensors");
    scratch.ok("report -q m.bs -o page.html");
    let (dom, log) = browser(&scratch, &["--dump-dom"]);
    assert!(!log.contains("CONSOLE"), "{log}");
    assert_eq!(dom.matches("<tr>").count(), 27, "a heading and 26 tensors");
    assert!(!dom.contains("alert(1)</script>"));

    // The table can be sorted: the page is told to click, and to show what it then has first.
    let page = String::from_utf8(scratch.read("page.html")).unwrap();
    let click = "document.querySelectorAll('th')[4].click();document.title=document.querySelector('tbody td').textContent;\n</script>";
    scratch.write("page.html", page.replacen("</script>\n</body>", &format!("{click}\n</body>"), 1));
    let (dom, log) = browser(&scratch, &["--dump-dom"]);
    assert!(!log.contains("CONSOLE"), "{log}");
    assert!(dom.contains("<title>embed_tokens.weight</title>"), "the largest is first");

    // On a phone the page is as wide as the phone: only what is meant to be can be scrolled sideways.
    let measure = "document.title='width '+document.documentElement.scrollWidth;\n</script>";
    scratch.write("page.html", page.replacen("</script>\n</body>", &format!("{measure}\n</body>"), 1));
    let (dom, _) = browser(&scratch, &["--window-size=500,900", "--dump-dom"]);
    assert!(
        dom.contains("<title>width 500</title>") || dom.contains("<title>width 485</title>"),
        "{}",
        &dom[dom.find("<title>").unwrap()..][..60]
    );
}
