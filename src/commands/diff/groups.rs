//! Tensors by the layer that they belong to.

use std::collections::BTreeMap;

use bigsmall_codec::diff::{Change, Compared, Steps};

/// What the tensors of a layer add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    pub tensors: u64,
    /// Tensors that are not the same.
    pub changed_tensors: u64,
    /// Elements that both models have, and how many of them changed.
    pub elements: u64,
    pub changed: u64,
    /// The steps of those elements that have steps.
    pub steps: Steps,
}

impl Group {
    /// Counts a tensor.
    pub fn add(&mut self, compared: &Compared<'_>) {
        self.tensors += 1;
        self.changed_tensors += u64::from(compared.change != Change::Same);
        match compared.change {
            Change::Same => self.elements += compared.elements(),
            Change::Values(steps) | Change::Shape(Some(steps)) => {
                self.elements += steps.elements;
                self.changed += steps.changed;
                if compared.is_ordered() {
                    self.steps.add(&steps);
                }
            }
            Change::Dtype | Change::Shape(None) | Change::Added | Change::Removed => {}
        }
    }

    /// The part of the elements that changed, from 0 to 1.
    pub fn fraction(&self) -> Option<f64> {
        (self.elements > 0).then(|| self.changed as f64 / self.elements as f64)
    }
}

/// A part of a name; numbers come in their order and before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

/// The groups that have tensors which are not the same, in the natural order of their names, and all tensors together.
pub fn groups(compared: &[Compared<'_>]) -> (Vec<(String, Group)>, Group) {
    let (mut groups, mut total) = (BTreeMap::<Vec<Part>, (String, Group)>::new(), Group::default());
    for compared in compared {
        let name = group_of(&compared.tensor().name);
        let part = |part: &str| part.parse().map_or_else(|_| Part::Word(part.to_owned()), Part::Number);
        let key = name.split('.').map(part).collect();
        groups.entry(key).or_insert_with(|| (name.to_owned(), Group::default())).1.add(compared);
        total.add(compared);
    }
    (groups.into_values().filter(|(_, group)| group.changed_tensors > 0).collect(), total)
}

/// The group that a tensor belongs to: its name up to the first number, or all but the last part where there is none:
/// `model.layers.3.mlp.up_proj.weight` is of `model.layers.3`, `model.norm.weight` of `model.norm`.
fn group_of(name: &str) -> &str {
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if end > part.len() && !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            return &name[..end];
        }
        end += 1;
    }
    name.rsplit_once('.').map_or(name, |(module, _)| module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_which_layer_a_tensor_is_of() {
        for (name, group) in [
            ("model.layers.3.mlp.experts.7.up_proj.weight", "model.layers.3"),
            ("encoder.layer.11.output.dense.weight", "encoder.layer.11"),
            ("model.norm.weight", "model.norm"),
            ("unet/down_blocks.0.resnets.1.conv1.bias", "unet/down_blocks.0"),
            ("weight", "weight"),
            ("0.weight", "0"),
            ("", ""),
            ("..", "."),
        ] {
            assert_eq!(group_of(name), group, "{name}");
        }
    }
}
