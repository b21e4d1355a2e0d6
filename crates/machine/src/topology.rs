//! How cores and memory lie to one another: memory nodes, threads of one core.

use crate::{Reading, tree::Tree};

const NODES: &str = "/sys/devices/system/node/online";
const SMT: &str = "/sys/devices/system/cpu/smt/active";

/// Memory nodes that are online.
pub fn numa_nodes(tree: &Tree) -> Reading<u32> {
    let count = |text: String| count_of_list(&text).ok_or_else(|| format!("{NODES} holds {text:?}"));
    tree.text(NODES).and_then(count).into()
}

/// Whether threads of one core are in use.
pub fn smt(tree: &Tree) -> Reading<bool> {
    let flag = |text: String| match text.trim() {
        "1" => Ok(true),
        "0" => Ok(false),
        other => Err(format!("{SMT} holds {other:?}")),
    };
    tree.text(SMT).and_then(flag).into()
}

/// How many numbers a list of the kernel holds: 5 for `0-3,8`; `None` when it is empty or no list.
pub fn count_of_list(text: &str) -> Option<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    text.trim().split(',').try_fold(0_u32, |sum, part| sum.checked_add(range(part)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::fake::FakeTree;

    #[test]
    fn nodes_and_threads_are_read() {
        let fake = FakeTree::new(&[
            ("sys/devices/system/node/online", "0-1\n"),
            ("sys/devices/system/cpu/smt/active", "1\n"),
        ]);
        assert_eq!(numa_nodes(&fake.tree()), Reading::Known(2));
        assert_eq!(smt(&fake.tree()), Reading::Known(true));
    }

    #[test]
    fn what_is_not_said_has_a_reason() {
        let fake = FakeTree::new(&[("sys/devices/system/node/online", "\n")]);
        assert_eq!(numa_nodes(&fake.tree()).reason(), Some(r#"/sys/devices/system/node/online holds "\n""#));
        assert!(
            smt(&fake.tree()).reason().unwrap().starts_with("/sys/devices/system/cpu/smt/active: No such")
        );
    }

    #[test]
    fn a_list_has_ranges_and_numbers() {
        for (text, count) in [("0", 1), ("0-3,8\n", 5), ("0-0", 1), ("0,2,4-7", 6)] {
            assert_eq!(count_of_list(text), Some(count), "{text}");
        }
        for text in ["", "3-1", "a", "0-", "0-4294967295", "-1"] {
            assert_eq!(count_of_list(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_none(text in "[0-9,-]{0,40}") {
            prop_assert!(count_of_list(&text) != Some(0));
        }
    }
}
