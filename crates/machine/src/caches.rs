//! Data caches of the first core. All cores are alike on most machines, so that the size of a level in all follows
//! from how many cores share one.

use serde::{Deserialize, Serialize};

use crate::{Reading, limits::CACHES_MAX, topology::count_of_list, tree::Tree};

/// A cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cache {
    /// 1 is the nearest.
    pub level: u32,
    /// Its size.
    pub bytes: u64,
    /// Logical cores that share it.
    pub shared_by: u32,
}

const CACHES: &str = "/sys/devices/system/cpu/cpu0/cache";

/// The caches that hold data, nearest first.
pub fn probe(tree: &Tree) -> Reading<Vec<Cache>> {
    let names = tree.names(CACHES, CACHES_MAX);
    let mut caches: Vec<Cache> = names.iter().filter_map(|name| read(tree, name)).collect();
    caches.sort_unstable();
    if caches.is_empty() {
        Reading::absent(format!("{CACHES} lists no cache"))
    } else {
        Reading::Known(caches)
    }
}

fn read(tree: &Tree, name: &str) -> Option<Cache> {
    let text = |field: &str| tree.optional(&format!("{CACHES}/{name}/{field}"));
    let holds_data = text("type").is_some_and(|kind| kind.trim() != "Instruction");
    Some(Cache {
        level: text("level")?.trim().parse().ok().filter(|_| holds_data)?,
        bytes: size_bytes(&text("size")?)?,
        shared_by: count_of_list(&text("shared_cpu_list")?)?,
    })
}

/// `48K` or `32M`, in units of 1024.
fn size_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, unit) =
        text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
    let factor: u64 = match unit {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).filter(|&bytes| bytes > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::fake::FakeTree;

    #[test]
    fn the_caches_of_an_ice_lake_are_read_without_that_of_instructions() {
        let fake = FakeTree::new(&[]);
        let recorded = [
            ("index3", "3", "Unified", "49152K", "0-1"),
            ("index0", "1", "Data", "48K", "0"),
            ("index1", "1", "Instruction", "32K", "0"),
            ("index2", "2", "Unified", "1280K", "0"),
        ];
        for (name, level, kind, size, shared) in recorded {
            for (field, text) in
                [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)]
            {
                fake.file(&format!("{}/{name}/{field}", &CACHES[1..]), &format!("{text}\n"));
            }
        }
        let cache = |level, bytes, shared_by| Cache { level, bytes, shared_by };
        let expected = vec![cache(1, 48 << 10, 1), cache(2, 1280 << 10, 1), cache(3, 48 << 20, 2)];
        assert_eq!(probe(&fake.tree()), Reading::Known(expected));
    }

    #[test]
    fn a_system_that_shows_no_caches_says_so() {
        let reason = "/sys/devices/system/cpu/cpu0/cache lists no cache";
        assert_eq!(probe(&FakeTree::new(&[]).tree()).reason(), Some(reason));
    }

    #[test]
    fn sizes_have_units_of_1024() {
        assert_eq!(size_bytes("32M\n"), Some(32 << 20));
        assert_eq!(size_bytes("512"), Some(512));
        for text in ["", "K", "0K", "5KB", "18446744073709551615K"] {
            assert_eq!(size_bytes(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_size_or_none(text in "[0-9]{0,30}[KMGé]{0,2}") {
            prop_assert!(size_bytes(&text) != Some(0));
        }
    }
}
