//! The page of a repo of containers: what it is, what it saves and how to use it. A card that somebody wrote is never replaced.

use std::fmt::Write as _;

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
}

/// What a card is made of.
#[derive(Clone, Debug)]
pub struct Card<'a> {
    pub repo: &'a RepoId,
    /// The repo of the originals, if it is known.
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
        let Card { repo, base, base_card, endpoint, rows } = self;
        let mut text = "---\n".to_owned();
        if let Some(base) = base {
            let _ = writeln!(text, "base_model: {base}");
        }
        text += &inherited(base_card.unwrap_or(""));
        text += "tags:\n- bigsmall\n- lossless-compression\n---\n";
        let original: u64 = rows.iter().map(|row| row.original_len).sum();
        let stored: u64 = rows.iter().map(|row| row.stored_len).sum();
        let whose = base.map_or("a model".to_owned(), |base| format!("[{base}]({endpoint}/{base})"));
        let share = percent(stored, original).unwrap_or(100.0);
        let name = repo.name();
        let _ = write!(
            text,
            "{MARK}\n\n# {name}\n\n\
             The weights of {whose}, stored losslessly in {} of bigsmall: **{}** instead of {}, {share:.1} % of it.\n\
             Every byte of the originals comes back.\n\n\
             ## Use\n\n\
             Mounted, the containers are the original files to every program, which reads what it needs of them:\n\n\
             ```console\n\
             $ bigsmall pull {repo} {name}\n\
             $ bigsmall mount {name} mnt\n\
             $ python -c \"from transformers import AutoModel; AutoModel.from_pretrained('mnt')\"\n\
             $ bigsmall umount mnt\n\
             ```\n\n\
             `bigsmall decompress {name} -o original` brings the original files back.\n\n\
             ## Files\n\n\
             | container | original | size | stored | share | SHA-256 of the original |\n\
             |---|---|---:|---:|---:|---|\n",
            count(rows.len() as u64, "container"),
            show_size(stored),
            show_size(original),
        );
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
        text + "\nEach container records the MD5 of every tensor besides; `bigsmall verify` checks them all.\n"
    }
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
}
