//! `compress` and `decompress` of model directories.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::*;

/// A model directory with all that one may have.
fn model_directory(scratch: &Scratch) {
    scratch.write("model/model-00001-of-00002.safetensors", small_model());
    scratch.write("model/model-00002-of-00002.safetensors", fs::read(REAL_WEIGHTS).unwrap());
    scratch.write("model/model.safetensors.index.json", "{\"weight_map\":{}}");
    scratch.write("model/config.json", "{}");
    scratch.write("model/empty.txt", "");
    scratch.write("model/.hidden", "h");
    scratch.write("model/.git/HEAD", "ref: refs/heads/main\n");
    scratch.write("model/1_Pooling/config.json", "{}");
    scratch.write("model/onnx/deep/down/adapter.safetensors", small_model());
    scratch.write("model/onnx/deep/down/empty.safetensors", "");
    scratch.write(Path::new("model").join(OsStr::from_bytes(b"caf\xe9.txt")), "latin 1");
    fs::create_dir(scratch.path("model/nothing-in-it")).unwrap();
    for (number, (name, mode)) in [
        ("model/config.json", 0o400),
        ("model/.hidden", 0o777),
        ("model/empty.txt", 0o006),
        ("model/model-00001-of-00002.safetensors", 0o604),
        ("model/onnx/deep/down/adapter.safetensors", 0o444),
        ("model/onnx/deep/down", 0o711),
        ("model/onnx", 0o555),
        ("model/nothing-in-it", 0o750),
        ("model", 0o751),
    ]
    .into_iter()
    .enumerate()
    {
        set_attributes(&scratch.path(name), mode, (1_600_000_000 + number as u64, 999_999_999 - number as u32));
    }
}

#[test]
fn a_directory_comes_back_with_everything_in_it() {
    let scratch = Scratch::new();
    model_directory(&scratch);
    let before = tree(&scratch.path("model"));
    let table = scratch.ok("compress model");
    let lines: Vec<String> = mask_speed(&table).lines().map(str::to_owned).collect();
    let names: Vec<&str> = lines.iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(
        names,
        [
            "file",
            "model-bigsmall/model-00001-of-00002.bs",
            "model-bigsmall/model-00002-of-00002.bs",
            "model-bigsmall/onnx/deep/down/adapter.bs",
            "model-bigsmall/onnx/deep/down/empty.bs",
            "total",
            "and"
        ]
    );
    assert!(lines[4].contains("  0 B  ") && lines[4].contains("  -  "), "nothing is saved of nothing: {}", lines[4]);
    assert_eq!(lines[6], "and 7 other files copied as they are, 50 B");
    assert_eq!(
        names_in(&scratch.path("model-bigsmall")),
        [
            ".git",
            ".hidden",
            "1_Pooling",
            "caf\u{fffd}.txt",
            "config.json",
            "empty.txt",
            "model-00001-of-00002.bs",
            "model-00002-of-00002.bs",
            "model.safetensors.index.json",
            "nothing-in-it",
            "onnx"
        ]
    );
    let attributes_of = |name: &str| attributes(&scratch.path(name));
    assert_eq!(attributes_of("model-bigsmall"), attributes_of("model"));
    assert_eq!(attributes_of("model-bigsmall/onnx"), attributes_of("model/onnx"));

    fs::rename(scratch.path("model"), scratch.path("before")).unwrap();
    let table = scratch.ok("decompress model-bigsmall");
    assert!(table.ends_with("\nand 7 other files copied as they are, 50 B\n"), "{table}");
    assert!(tree(&scratch.path("model")) == before, "bytes, permissions and times");
    assert_eq!(scratch.names(), ["before", "model", "model-bigsmall"]);
}

#[test]
fn the_cache_of_hugging_face_is_followed_through_its_links() {
    let scratch = Scratch::new();
    scratch.write("blobs/aa", small_model());
    scratch.write("blobs/bb", "{}");
    scratch.write("elsewhere/sub.safetensors", small_model());
    fs::create_dir_all(scratch.path("snapshots/main")).unwrap();
    symlink("../../blobs/aa", scratch.path("snapshots/main/model.safetensors")).unwrap();
    symlink("../../blobs/bb", scratch.path("snapshots/main/config.json")).unwrap();
    symlink(scratch.path("elsewhere"), scratch.path("snapshots/main/first")).unwrap();
    symlink(scratch.path("elsewhere"), scratch.path("snapshots/main/second")).unwrap();
    let before = tree(&scratch.path("snapshots/main"));
    scratch.ok("compress -q snapshots/main -o small");
    scratch.ok("decompress -q small -o back");
    assert!(tree(&scratch.path("back")) == before);
    for name in ["model.safetensors", "config.json", "first", "second/sub.safetensors"] {
        assert!(!fs::symlink_metadata(scratch.path("back").join(name)).unwrap().is_symlink(), "{name} is no link");
    }
}

#[test]
fn directories_without_a_name_of_their_own_are_named_after_where_they_are() {
    let scratch = Scratch::new();
    scratch.write("model/model.safetensors", small_model());
    fs::create_dir(scratch.path("model/sub")).unwrap();
    let run = |directory: &str, arguments: [&str; 3]| {
        let output = scratch.command(BIGSMALL).current_dir(scratch.path(directory)).args(arguments).output().unwrap();
        Run::from(output)
    };
    let done = run("model", ["compress", "-q", "."]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert_eq!(names_in(&scratch.path("model-bigsmall")), ["model.bs", "sub"]);
    fs::remove_dir_all(scratch.path("model-bigsmall")).unwrap();
    assert_eq!(run("model/sub", ["compress", "-q", ".."]).code, 0);
    scratch.ok("decompress -q model-bigsmall/ -o back");
    fs::rename(scratch.path("model-bigsmall"), scratch.path("other")).unwrap();
    scratch.ok("decompress -q other/");
    assert_eq!(scratch.names(), ["back", "model", "other", "other-original"]);
}

#[test]
fn a_directory_that_exists_is_only_written_into_when_forced() {
    let scratch = Scratch::new();
    scratch.write("model/model.safetensors", small_model());
    scratch.write("model/sub/config.json", "new");
    scratch.write("model/sub/new.json", "new");
    scratch.write("model-bigsmall/sub/config.json", "old");
    scratch.write("model-bigsmall/kept.txt", "kept");
    set_attributes(&scratch.path("model-bigsmall/sub"), 0o700, (1_000_000_000, 0));
    assert_eq!(
        scratch.fails(2, "compress model"),
        "bigsmall: model-bigsmall: exists already\n\
         --force writes into it and replaces files of the same names; -o gives another place\n"
    );
    assert_eq!(names_in(&scratch.path("model-bigsmall")), ["kept.txt", "sub"]);
    assert_eq!(scratch.read("model-bigsmall/sub/config.json"), b"old");
    scratch.ok("compress -q --force model");
    assert_eq!(names_in(&scratch.path("model-bigsmall")), ["kept.txt", "model.bs", "sub"]);
    assert_eq!(names_in(&scratch.path("model-bigsmall/sub")), ["config.json", "new.json"]);
    assert_eq!(scratch.read("model-bigsmall/sub/config.json"), b"new");
    assert_eq!(attributes(&scratch.path("model-bigsmall/sub")).0, 0o700, "what was there keeps its permissions");

    scratch.write("model/model.safetensors", "damaged");
    assert_eq!(
        scratch.fails(2, "decompress model-bigsmall"),
        "bigsmall: model: exists already\n\
         --force writes into it and replaces files of the same names; -o gives another place\n"
    );
    scratch.ok("decompress -q -f model-bigsmall");
    assert!(scratch.read("model/model.safetensors") == small_model());
}

#[test]
fn an_empty_directory_that_exists_is_written_into() {
    let scratch = Scratch::new();
    scratch.write("model/model.safetensors", small_model());
    fs::create_dir(scratch.path("out")).unwrap();
    scratch.ok("compress -q model -o out");
    assert_eq!(names_in(&scratch.path("out")), ["model.bs"]);
}

#[test]
fn what_is_in_the_way_stays_even_when_forced() {
    let scratch = Scratch::new();
    scratch.write("model/a.safetensors", small_model());
    scratch.write("model/sub/config.json", "new");
    scratch.write("file", "file");
    scratch.write("one/sub", "a file");
    fs::create_dir_all(scratch.path("two/a.bs")).unwrap();
    for (target, message) in [
        ("file", "file: exists already and is not a directory"),
        ("one", "one/sub: exists already and is not a directory"),
        ("two", "two/a.bs: is a directory; a file cannot replace it"),
    ] {
        assert_eq!(scratch.fails(2, &format!("compress --force model -o {target}")), format!("bigsmall: {message}\n"));
    }
    assert_eq!(names_in(&scratch.path("one")), ["sub"]);
    assert_eq!(names_in(&scratch.path("two")), ["a.bs"]);
}

#[test]
fn a_gguf_beside_a_safetensors_file_has_a_name_of_its_own() {
    let scratch = Scratch::new();
    scratch.write("model/a.safetensors", small_model());
    scratch.write("model/a.gguf", gguf_model());
    scratch.write("model/b-00001-of-00002.gguf", gguf_model());
    let before = tree(&scratch.path("model"));
    scratch.ok("compress -q model");
    assert_eq!(names_in(&scratch.path("model-bigsmall")), ["a.bs", "a.gguf.bs", "b-00001-of-00002.bs"]);
    assert!(scratch.read("model-bigsmall/a.gguf.bs").len() < gguf_model().len() * 3 / 4);
    scratch.ok("decompress -q model-bigsmall -o back");
    assert!(tree(&scratch.path("back")) == before);
    let info = scratch.json("info --json model-bigsmall/a.gguf.bs");
    assert_eq!(info["containers"][0]["dtypes"]["BF16"]["bytes"], 40_000, "{info}");
}

#[test]
fn two_files_that_would_get_one_name_are_refused() {
    let scratch = Scratch::new();
    scratch.write("model/sub/a.safetensors", small_model());
    scratch.write("model/sub/a.bs", "in the way");
    assert_eq!(
        scratch.fails(2, "compress model"),
        "bigsmall: model/sub/a.bs and model/sub/a.safetensors would both become model-bigsmall/sub/a.bs: \
         move or rename one of them first\n"
    );
    fs::remove_file(scratch.path("model/sub/a.bs")).unwrap();
    fs::create_dir(scratch.path("model/sub/a.bs")).unwrap();
    assert_eq!(
        scratch.fails(2, "compress model"),
        "bigsmall: model/sub/a.safetensors would get the name of a directory, model-bigsmall/sub/a.bs: \
         move or rename one of them first\n"
    );
    fs::remove_dir(scratch.path("model/sub/a.bs")).unwrap();
    scratch.ok("compress -q model");
    scratch.write("model-bigsmall/sub/a.safetensors", "in the way");
    assert_eq!(
        scratch.fails(2, "decompress model-bigsmall -o back"),
        "bigsmall: model-bigsmall/sub/a.bs and model-bigsmall/sub/a.safetensors would both become \
         back/sub/a.safetensors: move or rename one of them first\n"
    );
    assert_eq!(scratch.names(), ["model", "model-bigsmall"]);
}

#[test]
fn a_target_inside_the_source_is_refused() {
    let scratch = Scratch::new();
    scratch.write("model/model.safetensors", small_model());
    fs::create_dir(scratch.path("model/sub")).unwrap();
    symlink("model", scratch.path("link")).unwrap();
    for (source, target) in [
        ("model", "model"),
        ("model", "model/new"),
        ("model", "model/sub/new"),
        ("model", "link/x"),
        ("link", "model/x"),
    ] {
        let refused = format!("bigsmall: {target}: lies in {source}, which is read; give another place with -o\n");
        assert_eq!(scratch.fails(2, &format!("compress --force {source} -o {target}")), refused);
    }
    assert_eq!(names_in(&scratch.path("model")), ["model.safetensors", "sub"]);
}

#[test]
fn a_target_around_the_source_does_not_overwrite_what_is_read() {
    let scratch = Scratch::new();
    scratch.write("out/sub/model.safetensors", small_model());
    scratch.write("out/sub/config.json", "{}");
    symlink(scratch.path("out/sub"), scratch.path("out/other")).unwrap();
    fs::create_dir(scratch.path("out/sub/other")).unwrap();
    scratch.write("out/sub/other/config.json", "different");
    assert_eq!(
        scratch.fails(2, "compress --force out/sub -o out"),
        "bigsmall: out/sub/other/config.json: would be written over a file that is read; \
         give another place with -o\n"
    );
    assert_eq!(scratch.read("out/sub/config.json"), b"{}");
}

#[test]
fn links_that_lead_nowhere_or_in_circles_are_refused() {
    let scratch = Scratch::new();
    scratch.write("model/model.safetensors", small_model());
    fs::create_dir(scratch.path("model/sub")).unwrap();
    let refused = |target: &str, message: &str| {
        let link = scratch.path("model/sub/link");
        symlink(target, &link).unwrap();
        let said = scratch.fails(2, "compress model");
        assert_eq!(said, format!("bigsmall: model/sub/link: {message}\n"));
        fs::remove_file(link).unwrap();
    };
    refused("nowhere", "is a symbolic link that leads nowhere");
    refused("..", "is a symbolic link that leads back into a directory that it is in");
    refused("../../model", "is a symbolic link that leads back into a directory that it is in");
    refused(".", "is a symbolic link that leads back into a directory that it is in");
    refused("link", "cannot be read: Too many levels of symbolic links (os error 40)");
    assert_eq!(scratch.names(), ["model"]);
}

#[test]
fn what_is_neither_file_nor_directory_is_refused() {
    let scratch = Scratch::new();
    scratch.write("model/model.safetensors", small_model());
    let pipe = scratch.path("model/pipe");
    assert!(scratch.command("mkfifo").arg(&pipe).status().unwrap().success());
    let said = scratch.fails(2, "compress model");
    assert_eq!(said, "bigsmall: model/pipe: is a named pipe, not a file or directory\n");
    fs::remove_file(pipe).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(scratch.path("model/socket")).unwrap();
    let said = scratch.fails(2, "compress model");
    assert_eq!(said, "bigsmall: model/socket: is a socket, not a file or directory\n");
    symlink("/dev/null", scratch.path("model/a")).unwrap();
    let said = scratch.fails(2, "compress model");
    assert_eq!(said, "bigsmall: model/a: is a device, not a file or directory\n");
    assert_eq!(scratch.names(), ["model"]);
}

#[test]
fn a_directory_with_nothing_to_do_is_refused() {
    let scratch = Scratch::new();
    scratch.write("model/config.json", "{}");
    scratch.write("model/model.SafeTensors.txt", "{}");
    for (command, message) in [
        ("compress", "there is no .safetensors or .gguf file in it: nothing to compress"),
        ("decompress", "there is no container (*.bs) in it: nothing to decompress"),
        ("info", "there is no container (*.bs) in it"),
        ("verify", "there is no container (*.bs) in it"),
    ] {
        assert_eq!(scratch.fails(2, &format!("{command} model")), format!("bigsmall: model: {message}\n"));
    }
    assert_eq!(scratch.names(), ["model"]);
}

#[test]
fn a_container_under_the_name_of_an_original_is_refused() {
    let scratch = Scratch::new();
    scratch.write("model/a.safetensors", small_model());
    scratch.ok("compress -q model/a.safetensors -o model/b.safetensors");
    let said = scratch.fails(2, "compress model");
    assert_eq!(said, "bigsmall: model/b.safetensors: is a bigsmall container already\n");
}

#[test]
fn a_file_that_is_only_called_a_container_is_copied_and_named() {
    let scratch = Scratch::new();
    scratch.write("model/a.safetensors", small_model());
    scratch.ok("compress -q model");
    scratch.write("model-bigsmall/script.bs", "BrightScript");
    let run = scratch.run(["decompress", "-q", "model-bigsmall", "-o", "back"]);
    assert_eq!((run.code, run.stdout.as_str()), (0, ""));
    assert_eq!(
        run.stderr,
        "bigsmall: model-bigsmall/script.bs: is not a bigsmall container in spite of its name; copied as it is\n"
    );
    assert_eq!(scratch.read("back/script.bs"), b"BrightScript");
}

#[test]
fn a_failure_leaves_no_part_of_a_directory() {
    let scratch = Scratch::new();
    scratch.write("model/a.safetensors", small_model());
    scratch.write("model/b.safetensors", small_model());
    scratch.ok("compress -q model");
    let mut container = scratch.read("model-bigsmall/b.bs");
    container[5000] ^= 1;
    scratch.write("model-bigsmall/b.bs", container);
    let said = scratch.fails(2, "decompress model-bigsmall -o back");
    assert!(said.starts_with("bigsmall: model-bigsmall/b.bs: chunk "), "{said}");
    assert_eq!(scratch.names(), ["model", "model-bigsmall"]);
    // Into a directory that exists, what is complete goes and nothing else.
    scratch.write("back/kept.txt", "kept");
    scratch.fails(2, "decompress --force model-bigsmall -o back");
    assert_eq!(names_in(&scratch.path("back")), ["a.safetensors", "kept.txt"]);
    assert!(scratch.read("back/a.safetensors") == small_model());
}

#[test]
fn the_number_of_threads_does_not_show_in_a_directory() {
    let scratch = Scratch::new();
    model_directory(&scratch);
    scratch.ok("compress -q model -o one --threads 1");
    scratch.ok("compress -q model -o five --threads 5");
    assert!(tree(&scratch.path("one")) == tree(&scratch.path("five")));
}

#[test]
fn results_for_programs_list_every_container() {
    let scratch = Scratch::new();
    scratch.write("model/a.safetensors", small_model());
    scratch.write("model/sub/b.safetensors", small_model());
    scratch.write("model/config.json", "{}");
    scratch.write("model/vocab.txt", "abc");
    let json = scratch.json("compress --json model");
    let sources: Vec<&str> = json["files"].as_array().unwrap().iter().map(|f| f["source"].as_str().unwrap()).collect();
    assert_eq!(sources, ["model/a.safetensors", "model/sub/b.safetensors"]);
    assert_eq!(json["files"][1]["container"], "model-bigsmall/sub/b.bs");
    assert_eq!((&json["copied_files"], &json["copied_bytes"]), (&2.into(), &5.into()));
    assert_eq!(json["total"]["original_bytes"], 2 * small_model().len());
    let json = scratch.json("decompress --json model-bigsmall -o back");
    assert_eq!(json["files"][0]["original"], "back/a.safetensors");
    assert_eq!((&json["copied_files"], &json["copied_bytes"]), (&2.into(), &5.into()));
}
