//! The page of a repo of containers: what it is, what it saves and how to use it. A card that somebody wrote is never replaced.

use std::fmt::Write as _;

use bigsmall_codec::patch::Fingerprint;

use super::RepoId;
use crate::ui::hex;
use crate::ui::size::show_size;
use crate::ui::{count, percent};

/// The file that the Hub shows.
pub const CARD: &str = "README.md";

/// What tells a card that was written here from one that somebody wrote.
const MARK: &str = "<!-- bigsmall wrote this card and writes it anew; without this line it is yours and stays. -->";

/// Lines of the base model's card that hold for this one too.
const INHERITED: [&str; 5] = ["license", "license_name", "license_link", "pipeline_tag", "library_name"];

/// The most tensors whose MD5s a card lists: of more it would be a page that nobody reads.
pub const MOST_MD5S: usize = 2000;

/// A container in the repo.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its path.
    pub container: String,
    /// The name of the original.
    pub original: String,
    pub original_len: u64,
    pub stored_len: u64,
    /// The SHA-256 of the original; the Python package records none.
    pub sha256: Option<[u8; 32]>,
    /// What it is a patch of: the name that the base had, and its fingerprint.
    pub patch_of: Option<(String, Fingerprint)>,
    /// The MD5s of its tensors by their names, in hexadecimal, where they are at hand.
    pub md5s: Vec<(String, String)>,
}

/// What a card is made of.
#[derive(Clone, Debug)]
pub struct Card<'a> {
    pub repo: &'a RepoId,
    /// The repo of the originals or, of patches, of their base; if it is known.
    pub base: Option<&'a RepoId>,
    /// The card of that repo.
    pub base_card: Option<&'a str>,
    pub endpoint: &'a str,
    pub rows: &'a [Row],
}

/// Whether a card is one of ours.
pub fn is_ours(text: &str) -> bool {
    text.lines().any(|line| line.trim_end() == MARK)
}

impl Card<'_> {
    /// The text of the card. It depends on nothing but what it is made of.
    pub fn render(&self) -> String {
        let Card { repo, base, base_card, rows, .. } = self;
        let mut text = "---\n".to_owned();
        let patch = rows.iter().find_map(|row| row.patch_of.as_ref());
        if let Some(base) = base {
            let _ = writeln!(text, "base_model: {base}");
            if patch.is_some() {
                text += "base_model_relation: finetune\n";
            }
        }
        text += &inherited(base_card.unwrap_or(""));
        let _ = write!(text, "tags:\n- bigsmall\n- lossless-compression\n---\n{MARK}\n\n# {}\n\n", repo.name());
        text += &match patch {
            Some((base_name, fingerprint)) => self.about_patch(base_name, fingerprint),
            None => self.about_containers(),
        };
        text += "## Files\n\n\
                 | container | original | size | stored | share | SHA-256 of the original |\n\
                 |---|---|---:|---:|---:|---|\n";
        for row in *rows {
            let share = percent(row.stored_len, row.original_len).unwrap_or(100.0);
            let sha256 = row.sha256.map_or("not recorded".to_owned(), |sha256| format!("`{}`", hex(&sha256)));
            let _ = writeln!(
                text,
                "| `{}` | `{}` | {} | {} | {share:.1} % | {sha256} |",
                row.container,
                row.original,
                show_size(row.original_len),
                show_size(row.stored_len),
            );
        }
        text += "\nEach container records the MD5 of every tensor besides; `bigsmall verify` checks them all.\n";
        let md5s = rows.iter().flat_map(|row| &row.md5s);
        if (1..=MOST_MD5S).contains(&md5s.clone().count()) {
            text += "\n<details><summary>MD5s of the tensors</summary>\n\n| tensor | MD5 |\n|---|---|\n";
            for (name, md5) in md5s {
                let _ = writeln!(text, "| `{}` | `{}` |", name.replace(['|', '`', '\n'], " "), md5);
            }
            text += "\n</details>\n";
        }
        text
    }

    /// How much of how much is stored in how many containers.
    fn sizes(&self) -> (String, String, f64, usize) {
        let original: u64 = self.rows.iter().map(|row| row.original_len).sum();
        let stored: u64 = self.rows.iter().map(|row| row.stored_len).sum();
        (show_size(stored), show_size(original), percent(stored, original).unwrap_or(100.0), self.rows.len())
    }

    /// A link to the base.
    fn base_link(&self) -> Option<String> {
        self.base.map(|base| format!("[{base}]({}/{base})", self.endpoint))
    }

    /// What containers are, and how they are used.
    fn about_containers(&self) -> String {
        let (stored, original, share, number) = self.sizes();
        let whose = self.base_link().unwrap_or("a model".to_owned());
        let (repo, name) = (self.repo, self.repo.name());
        format!(
            "The weights of {whose}, stored losslessly in {} of bigsmall: **{stored}** instead of {original}, {share:.1} % of it.\n\
             Every byte of the originals comes back.\n\n\
             ## Use\n\n\
             Mounted, the containers are the original files to every program, which reads what it needs of them:\n\n\
             ```console\n\
             $ bigsmall pull {repo} {name}\n\
             $ bigsmall mount {name} mnt\n\
             $ python -c \"from transformers import AutoModel; AutoModel.from_pretrained('mnt')\"\n\
             $ bigsmall umount mnt\n\
             ```\n\n\
             `bigsmall decompress {name} -o original` brings the original files back.\n\n",
            count(number as u64, "container"),
        )
    }

    /// What patches are, and how they are used.
    fn about_patch(&self, base_name: &str, fingerprint: &Fingerprint) -> String {
        let (stored, original, share, number) = self.sizes();
        let patches = if number == 1 { "1 patch".to_owned() } else { format!("{number} patches") };
        let base = self.base_link().unwrap_or_else(|| format!("the model `{base_name}`"));
        let (repo, name) = (self.repo, self.repo.name());
        format!(
            "A fine-tune of {base}, stored losslessly in {patches} of bigsmall that hold what changed: **{stored}** instead of {original}, \
             {share:.1} % of it.\nWith the base, every byte of it comes back; without, nothing does.\n\n\
             ## Use\n\n\
             ```console\n\
             $ bigsmall pull --patch {repo} {name}\n\
             $ bigsmall mount {name} mnt\n\
             $ python -c \"from transformers import AutoModel; AutoModel.from_pretrained('mnt')\"\n\
             $ bigsmall umount mnt\n\
             ```\n\n\
             The base is found in the cache of the Hub, and fetched if it is not there. `bigsmall pull --patch {repo} -o original` writes the files \
             of the fine-tune out.\n\n\
             ## Base\n\n\
             {base}: it was called `{base_name}` when the patch was made, and its fingerprint is `{fingerprint}`. Before anything is decoded the \
             tensors that are needed are compared by their MD5s.\n\n",
        )
    }
}

/// The repo that the metadata of a card gives as the base of its model: the first, if there are more.
pub fn base_model(card: &str) -> Option<RepoId> {
    let mut lines = card.lines().map(str::trim_end);
    if lines.next() != Some("---") {
        return None;
    }
    let mut metadata = lines.take_while(|line| *line != "---");
    let value = metadata.find_map(|line| line.strip_prefix("base_model:"))?.trim();
    let value = if value.is_empty() { metadata.next()?.trim_start().strip_prefix("- ")? } else { value };
    let value = value.trim_matches(['[', ']', '"', '\'', ' ']);
    RepoId::parse(value.split(',').next()?.trim_end_matches(['"', '\''])).ok()
}

/// The lines of another card's metadata that hold here too.
fn inherited(card: &str) -> String {
    let mut lines = card.lines();
    if lines.next() != Some("---") {
        return String::new();
    }
    let metadata = lines.take_while(|line| *line != "---");
    let wanted = metadata.filter(|line| {
        line.split_once(':').is_some_and(|(key, value)| INHERITED.contains(&key) && !value.trim().is_empty())
    });
    wanted.fold(String::new(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_says_what_is_there_and_is_known_again() {
        let (repo, base) = (RepoId::parse("me/x-bigsmall").unwrap(), RepoId::parse("org/x").unwrap());
        let rows = [Row {
            container: "model.bs".into(),
            original: "model.safetensors".into(),
            original_len: 3_000_000,
            stored_len: 2_000_000,
            sha256: Some([0xab; 32]),
            patch_of: None,
            md5s: vec![("a|b".into(), hex(&[0xcd; 16]))],
        }];
        let base_card = "---\nlicense: mit\nlicense_link:\ntags:\n- other\nlanguage: en\n---\nlicense: none\n";
        let endpoint = "https://huggingface.co";
        let card = Card { repo: &repo, base: Some(&base), base_card: Some(base_card), endpoint, rows: &rows }.render();
        let start = "---\nbase_model: org/x\nlicense: mit\ntags:\n- bigsmall\n- lossless-compression\n---\n<!--";
        assert!(card.starts_with(start), "{card}");
        assert!(card.contains("**2.0 MB** instead of 3.0 MB, 66.7 %"), "{card}");
        assert!(card.contains("[org/x](https://huggingface.co/org/x)"), "{card}");
        assert!(card.contains("| `model.bs` | `model.safetensors` | 3.0 MB | 2.0 MB | 66.7 % | `abab"), "{card}");
        assert!(is_ours(&card) && !is_ours(base_card) && !is_ours(&card.replace("<!--", "")));
    }

    #[test]
    fn the_base_is_read_however_a_card_spells_it() {
        for value in [" org/x", " \"org/x\"", " [org/x, org/y]", "\n- org/x\n- org/y", "\n  - org/x"] {
            let card = format!("---\nlicense: mit\nbase_model:{value}\nlanguage: en\n---\n# base_model: a/b\n");
            assert_eq!(base_model(&card), Some(RepoId::parse("org/x").unwrap()), "{value:?}");
        }
        for card in [
            "",
            "base_model: org/x",
            "---\nbase_model:\n---\n",
            "---\nbase_model: ../x\n---\n",
            "---\n---\nbase_model: a/b\n",
        ] {
            assert_eq!(base_model(card), None, "{card:?}");
        }
    }
}
