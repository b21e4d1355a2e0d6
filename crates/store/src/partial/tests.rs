//! Partial blobs that are cut off, damaged, contended and completed.

use std::{
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt as _,
};

use proptest::prelude::*;

use super::{BLOCK_BYTES, Opened, PartialBlob, journal};
use crate::{Digest, Home, StoreError, limits::DISK_RESERVE_BYTES, testing::TestHome};

/// Bytes in which every place is another.
fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn open(home: &Home, id: &Digest, size: usize) -> PartialBlob {
    match home.partial(id, size as u64).unwrap() {
        Opened::Ready(partial) => partial,
        other => panic!("{other:?}"),
    }
}

fn write(partial: &PartialBlob, content: &[u8], range: Range<usize>) {
    partial.write_at(range.start as u64, &[&content[range]]).unwrap();
}

fn partial_files(home: &Home) -> usize {
    fs::read_dir(home.partial_dir()).unwrap().count()
}

#[test]
fn a_blob_written_in_any_order_is_stored_under_its_digest_with_its_checksums() {
    let test = TestHome::new();
    let content = content(3_500_000);
    let digest = Digest::of(&content);
    let partial = open(&test.home, &digest, content.len());
    write(&partial, &content, 2_000_000..3_500_000);
    assert_eq!((partial.done_bytes(), partial.frontier_bytes()), (1_500_000, 0));
    assert_eq!(partial.missing().first(), Some(&(0..2_000_000)));
    let pieces = [&content[..7], &[], &content[7..1_000_000], &content[1_000_000..2_000_000]];
    assert_eq!(partial.write_at(0, &pieces).unwrap(), 3_500_000);
    let blob = partial.finish(Some(&digest), "https://hub.example/a").unwrap();
    assert_eq!(fs::read(&blob.path).unwrap(), content);
    assert_eq!(test.home.blob(&digest), Some(blob));
    assert_eq!(test.home.sums(&digest).unwrap().source, "https://hub.example/a");
    assert_eq!(partial_files(&test.home), 0);
}

#[test]
fn a_blob_without_bytes_is_one_too() {
    let test = TestHome::new();
    let digest = Digest::of(b"");
    let blob = open(&test.home, &digest, 0).finish(Some(&digest), "").unwrap();
    assert_eq!(blob.size_bytes, 0);
}

#[test]
fn threads_that_write_at_once_make_one_whole_blob() {
    let test = TestHome::new();
    let content = content(8_000_000);
    let digest = Digest::of(&content);
    let partial = open(&test.home, &digest, content.len());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (partial, content) = (&partial, &content);
            scope.spawn(move || {
                for start in (thread * 100_000..content.len()).step_by(400_000) {
                    write(partial, content, start..content.len().min(start + 100_000));
                }
            });
        }
    });
    partial.finish(Some(&digest), "").unwrap();
}

#[test]
fn what_was_written_before_the_end_of_a_process_is_there_for_the_next() {
    let test = TestHome::new();
    let content = content(1_000_000);
    let digest = Digest::of(&content);
    let partial = open(&test.home, &digest, content.len());
    write(&partial, &content, 300_000..600_000);
    drop(partial);
    assert_eq!(test.home.partial_progress(&digest), Some(300_000));
    let partial = open(&test.home, &digest, content.len());
    assert_eq!(partial.missing(), [0..300_000, 600_000..1_000_000]);
    write(&partial, &content, 600_000..1_000_000);
    write(&partial, &content, 0..300_000);
    partial.finish(Some(&digest), "").unwrap();
}

#[test]
fn after_another_boot_only_what_survived_counts() {
    let test = TestHome::new();
    let content = content(400_000);
    let digest = Digest::of(&content);
    let partial = open(&test.home, &digest, content.len());
    for start in [0, 100_000, 200_000] {
        write(&partial, &content, start..start + 100_000);
    }
    drop(partial);
    let path = test.home.partial_dir().join(digest.file_name());
    File::options().write(true).open(&path).unwrap().write_all_at(&[0; 5000], 150_000).unwrap();
    assert_eq!(open(&test.home, &digest, content.len()).done_bytes(), 300_000, "believed within one boot");

    journal::testing::age(&path.with_added_extension("journal"));
    for _ in 0..2 {
        let partial = open(&test.home, &digest, content.len());
        assert_eq!(partial.missing(), [100_000..200_000, 300_000..400_000]);
    }
}

#[test]
fn content_with_another_digest_is_discarded() {
    let test = TestHome::new();
    let expected = Digest::of(b"abc");
    let partial = open(&test.home, &expected, 3);
    write(&partial, b"abd", 0..3);
    let error = partial.finish(Some(&expected), "").unwrap_err();
    assert!(matches!(error, StoreError::DigestMismatch { .. }), "{error}");
    assert_eq!(partial_files(&test.home), 0);
    assert!(test.blobs().is_empty());
}

#[test]
fn a_blob_that_is_not_complete_cannot_be_finished() {
    let test = TestHome::new();
    let partial = open(&test.home, &Digest::of(b"abc"), 3);
    write(&partial, b"ab", 0..2);
    assert!(matches!(partial.finish(None, ""), Err(StoreError::Invalid { .. })));
    assert!(matches!(partial.write_at(2, &[b"cd"]), Err(StoreError::Invalid { .. })));
    assert!(matches!(partial.write_at(u64::MAX, &[b"cd"]), Err(StoreError::Invalid { .. })));
    assert_eq!(partial.done_bytes(), 2);
}

#[test]
fn only_one_may_write_a_blob_and_others_see_how_far_it_is() {
    let test = TestHome::new();
    let id = Digest::of(b"abc");
    let partial = open(&test.home, &id, 3);
    write(&partial, b"abc", 0..1);
    assert!(matches!(test.home.partial(&id, 3).unwrap(), Opened::Busy));
    assert_eq!(test.home.partial_progress(&id), Some(1));
    assert_eq!(test.home.remove_partial(&id).unwrap(), None);
    let listed = test.home.partials().unwrap();
    assert!(matches!(listed[..], [ref one] if one.busy && one.done_bytes == 1 && one.size_bytes == Some(3)));
    write(&partial, b"abc", 1..3);
    partial.finish(Some(&id), "").unwrap();
    drop(partial);
    assert!(matches!(test.home.partial(&id, 3).unwrap(), Opened::Stored(blob) if blob.digest == id));
    assert_eq!(partial_files(&test.home), 0);
}

#[test]
fn a_blob_whose_length_turns_out_otherwise_begins_anew() {
    let test = TestHome::new();
    let id = Digest::of(b"abc");
    write(&open(&test.home, &id, 3), b"abc", 0..2);
    assert_eq!(open(&test.home, &id, 4).done_bytes(), 0);
}

#[test]
fn a_lost_journal_or_data_file_means_that_nothing_is_there() {
    for lost in ["", ".journal"] {
        let test = TestHome::new();
        let id = Digest::of(b"abc");
        write(&open(&test.home, &id, 3), b"abc", 0..2);
        let path = test.home.partial_dir().join(id.file_name() + lost);
        fs::remove_file(path).unwrap();
        assert_eq!(open(&test.home, &id, 3).done_bytes(), 0, "without {lost}");
    }
}

#[test]
fn a_process_killed_between_the_blobs_name_and_the_end_has_finished() {
    let test = TestHome::new();
    let id = Digest::of(b"abc");
    let partial = open(&test.home, &id, 3);
    write(&partial, b"abc", 0..3);
    let journal = test.home.partial_dir().join(id.file_name() + ".journal");
    let content = fs::read(&journal).unwrap();
    partial.finish(Some(&id), "").unwrap();
    crate::write_atomic(&journal, &content).unwrap();
    drop(partial);
    assert_eq!(test.home.partials().unwrap(), []);
    assert!(matches!(test.home.partial(&id, 3).unwrap(), Opened::Stored(_)));
    assert_eq!(partial_files(&test.home), 0);
}

#[test]
fn a_partial_blob_can_be_removed() {
    let test = TestHome::new();
    let id = Digest::of(b"abc");
    write(&open(&test.home, &id, 3), b"abc", 0..2);
    assert!(test.home.remove_partial(&id).unwrap().is_some());
    assert_eq!(test.home.partials().unwrap(), []);
    assert_eq!(partial_files(&test.home), 0);
    assert_eq!(test.home.remove_partial(&id).unwrap(), Some(0));
}

#[test]
fn a_blob_that_does_not_fit_is_refused_before_it_begins() {
    let test = TestHome::new();
    let error = test.home.partial(&Digest::of(b"huge"), 1 << 42).unwrap_err();
    let StoreError::NoSpace { needed_bytes, free_bytes, .. } = &error else { panic!("{error}") };
    assert!(*needed_bytes == (1 << 42) + DISK_RESERVE_BYTES && free_bytes < needed_bytes);
    assert!(error.hint().is_some());
}

#[test]
fn a_blob_over_the_budget_is_refused_also_beside_one_that_is_being_fetched() {
    let test = TestHome::new();
    let home = test.home.clone().with_disk_budget(Some(1000));
    let first = open(&home, &Digest::of(b"first"), 600);
    let error = home.partial(&Digest::of(b"second"), 500).unwrap_err();
    let StoreError::OverBudget { used_bytes, .. } = &error else { panic!("{error}") };
    assert_eq!(*used_bytes, 600);
    assert!(error.hint().unwrap().contains("--disk-budget"));
    assert!(matches!(home.partial(&Digest::of(b"third"), 400), Ok(Opened::Ready(_))));
    drop(first);
}

#[test]
fn a_damaged_blob_is_taken_back_with_its_good_blocks() {
    let content = content(3_000_000);
    let digest = Digest::of(&content);
    for linked in [false, true] {
        let test = TestHome::new();
        let mut damaged = content.clone();
        damaged[1_500_000] ^= 1;
        damaged.truncate(2_500_000);
        let user_file = test.file("mine.gguf", &damaged);
        let blob = test.home.blobs_dir().join(digest.file_name());
        if linked {
            fs::hard_link(&user_file, &blob).unwrap();
        } else {
            fs::copy(&user_file, &blob).unwrap();
        }
        assert!(
            test.home
                .reopen_as_partial(&digest, 3_000_000, &[0..BLOCK_BYTES, 2 * BLOCK_BYTES..2_500_000])
                .unwrap()
        );
        assert_eq!(test.home.blob(&digest), None);
        let partial = open(&test.home, &digest, content.len());
        assert_eq!(partial.missing(), [BLOCK_BYTES..2 * BLOCK_BYTES, 2_500_000..3_000_000]);
        for range in partial.missing() {
            write(&partial, &content, range.start as usize..range.end as usize);
        }
        partial.finish(Some(&digest), "").unwrap();
        assert_eq!(fs::read(&user_file).unwrap(), damaged, "a user's own file was written to");
    }
}

#[test]
fn a_blob_that_is_being_fetched_is_not_taken_back() {
    let test = TestHome::new();
    let digest = Digest::of(b"abc");
    let _busy = open(&test.home, &digest, 3);
    File::create(test.home.blobs_dir().join(digest.file_name())).unwrap();
    assert!(!test.home.reopen_as_partial(&digest, 3, &[]).unwrap());
    assert!(test.home.blob(&digest).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_journal_cut_at_any_byte_never_claims_what_was_not_written(cut in 0_u64..300, pieces in 1_usize..8) {
        let test = TestHome::new();
        let content = content(80);
        let digest = Digest::of(&content);
        let partial = open(&test.home, &digest, 80);
        (0..pieces).for_each(|piece| write(&partial, &content, piece * 10..piece * 10 + 10));
        drop(partial);
        let path = test.home.partial_dir().join(digest.file_name()).with_added_extension("journal");
        let file = File::options().write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(cut.min(length)).unwrap();
        let partial = open(&test.home, &digest, 80);
        prop_assert!(partial.done_bytes() <= pieces as u64 * 10);
        for range in partial.missing() {
            write(&partial, &content, range.start as usize..range.end as usize);
        }
        partial.finish(Some(&digest), "").unwrap();
    }
}
