//! The whole way of a bundle: written, checked, changed, shared, reported, compared, held against claims.

mod answers;
mod samples;

use std::{fs, path::Path};

use firepot_store::write_atomic;
use tempfile::TempDir;

use crate::{
    Identity,
    bundle::{
        Bundle, BundleError, BundleWriter, File, FileEntry, Model, Request, SCHEMA, Target, TargetKind,
    },
    check,
    claims::Claims,
    compare::{Change, Gate, compare, versus},
    repeat::repeatability,
    report, share,
    summary::{Summary, summarize},
    testing::Simulated,
};

fn written(simulated: &Simulated) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    simulated.write(dir.path()).unwrap();
    dir
}

fn session(simulated: &Simulated) -> (Bundle, Summary) {
    let bundle = Bundle::open(written(simulated).path()).unwrap();
    let summary = summarize(&bundle);
    (bundle, summary)
}

fn claims(name: &str) -> Claims {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deployment/claims").join(name);
    Claims::parse(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn what_was_written_checks() {
    let dir = written(&Simulated::default());
    let checked = check(dir.path()).unwrap();
    assert!(checked.differences.is_empty(), "{:#?}", checked.differences);
    assert!(checked.figures > 60, "{} figures", checked.figures);
}

#[test]
fn one_changed_byte_is_found_in_every_file() {
    let dir = written(&Simulated { samples: 6, ..Simulated::default() });
    for file in File::ALL {
        let path = dir.path().join(file.name());
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        write_atomic(&path, &bad).unwrap();
        let checked = check(dir.path()).unwrap();
        assert!(checked.differences[0].starts_with(file.name()), "{:?}", checked.differences);
        assert!(Bundle::open(dir.path()).is_err(), "{}", file.name());
        fs::remove_file(&path).unwrap();
        // Without its first file it is no bundle at all.
        let Ok(checked) = check(dir.path()) else {
            assert_eq!(file, File::Trial);
            write_atomic(&path, &good).unwrap();
            continue;
        };
        assert_eq!(checked.differences[0], format!("{} is missing", file.name()));
        write_atomic(&path, &good).unwrap();
    }
    assert!(check(dir.path()).unwrap().differences.is_empty());
}

#[test]
fn a_figure_that_does_not_follow_from_the_samples_is_named() {
    let dir = written(&Simulated { samples: 6, ..Simulated::default() });
    let path = dir.path().join("summary.json");
    let mut summary: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let figures = summary["figures"].as_array_mut().unwrap();
    let figure = figures.iter_mut().find(|figure| figure["metric"] == "decode_tokens_per_s").unwrap();
    figure["value"] = serde_json::json!(1234.5);
    write_atomic(&path, summary.to_string().as_bytes()).unwrap();
    let differences = check(dir.path()).unwrap().differences;
    assert_eq!(differences.len(), 2, "{differences:?}");
    assert!(differences[1].contains("decode_tokens_per_s/value: 1234.5 is written"), "{differences:?}");
}

#[test]
fn a_trial_that_was_killed_at_any_byte_loses_at_most_the_line_in_flight() {
    let dir = written(&Simulated { samples: 6, ..Simulated::default() });
    fs::remove_file(dir.path().join("manifest.json")).unwrap();
    let path = dir.path().join("requests.jsonl");
    let whole = fs::read(&path).unwrap();
    let before = Bundle::read_unfinished(dir.path()).unwrap().requests;
    for cut in [0, 1, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        write_atomic(&path, &whole[..cut]).unwrap();
        let complete = whole[..cut].split(|&byte| byte == b'\n').count() - 1;
        let (writer, found) = BundleWriter::resume(dir.path()).unwrap();
        assert_eq!(found.requests, before[..complete], "cut at {cut}");
        writer.append(&before[complete]).unwrap();
        drop(writer);
        assert_eq!(Bundle::read_unfinished(dir.path()).unwrap().requests, before[..=complete]);
    }
}

#[test]
fn a_finished_bundle_is_not_resumed() {
    let dir = written(&Simulated { samples: 6, ..Simulated::default() });
    assert!(matches!(BundleWriter::resume(dir.path()), Err(BundleError::Finished { .. })));
}

#[test]
fn a_shared_bundle_checks_and_does_not_say_whose_it_is() {
    let dir = written(&Simulated { samples: 6, ..Simulated::default() });
    let out = dir.path().join("shared.tar.gz");
    let identity = Identity { names: vec!["somebody".to_owned()] };
    share(dir.path(), &out, &identity).unwrap();
    let checked = check(&out).unwrap();
    assert!(checked.differences.is_empty(), "{:?}", checked.differences);
    let (original, shared) = (Bundle::open(dir.path()).unwrap(), Bundle::open(&out).unwrap());
    assert_eq!(summarize(&original), summarize(&shared));
    assert!(shared.manifest.clone().unwrap().shared_of.is_some());
    let told = format!("{shared:?}");
    assert!(!told.contains("somebody") && !told.contains("/home/"), "traces are left");
    let first = fs::read(&out).unwrap();
    share(dir.path(), &out, &identity).unwrap();
    assert_eq!(fs::read(&out).unwrap(), first, "packing twice gives the same file");
}

/// What a bundle reads by name may be spelled like the user.
#[test]
fn a_user_with_the_name_of_a_server_can_share() {
    let dir = written(&Simulated { samples: 6, kind: TargetKind::Firepot, ..Simulated::default() });
    let out = dir.path().join("shared.tar.gz");
    for name in ["firepot", "ollama", "warm", "sample", "null"] {
        share(dir.path(), &out, &Identity { names: vec![name.to_owned()] }).unwrap();
        let checked = check(&out).unwrap();
        assert!(checked.differences.is_empty(), "{name}: {:?}", checked.differences);
        assert_eq!(Bundle::open(&out).unwrap().workload.targets[0].kind, TargetKind::Firepot);
    }
}

#[test]
fn an_archive_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.tar.gz");
    write_atomic(&path, b"not an archive").unwrap();
    assert!(matches!(Bundle::open(&path), Err(BundleError::Archive { .. } | BundleError::NoBundle { .. })));
}

#[test]
fn warm_up_is_found_and_left_out() {
    let (_, summary) = session(&Simulated::default());
    let outcome = summary.cases.iter().find(|case| case.case == "warm-512").unwrap();
    assert_eq!(outcome.warmup, Some(2), "{outcome:?}");
    let figure = summary.figure("decode_tokens_per_s", Some("warm-512"), "a").unwrap();
    let expected = 1e6 / 11_000.0 / (1.0 + 512.0 / 8000.0);
    assert!((figure.value / expected - 1.0).abs() < 0.01, "{figure:?}, expected {expected}");
}

#[test]
fn a_quiet_pair_repeats_and_a_disturbed_one_says_why() {
    let quiet = (session(&Simulated::default()), session(&Simulated { seed: 2, ..Simulated::default() }));
    let found = repeatability(&[(&quiet.0.0, &quiet.0.1), (&quiet.1.0, &quiet.1.1)]);
    assert_eq!(found.repeatable, Some(true), "{found:#?}");
    let disturbed = session(&Simulated {
        seed: 3,
        slowdown: 0.3,
        bandwidth_bytes_per_s: 3.0e10,
        compute_macs_per_s: 4.9e10,
        others_percent: 40.0,
        ..Simulated::default()
    });
    let found = repeatability(&[(&quiet.0.0, &quiet.0.1), (&disturbed.0, &disturbed.1)]);
    assert_eq!(found.repeatable, Some(false));
    let told = found.reasons.join("\n");
    assert!(told.contains("the machine changed: its memory bandwidth differs by 33"), "{told}");
    assert!(told.contains("the machine changed: its compute rate differs by 6"), "{told}");
    assert!(told.contains("other programs used 4") && told.contains("in session 2"), "{told}");
    let noisy = |seed| session(&Simulated { seed, spread: 0.3, ..Simulated::default() });
    let (one, two) = (noisy(5), noisy(6));
    let found = repeatability(&[(&one.0, &one.1), (&two.0, &two.1)]);
    assert_eq!(found.repeatable, Some(false));
    let told = found.reasons.join("\n");
    assert!(told.contains("the sessions are not steady enough for these limits"), "{told}");
    let other = session(&Simulated { seed: 4, model: "qwen".to_owned(), ..Simulated::default() });
    let found = repeatability(&[(&quiet.0.0, &quiet.0.1), (&other.0, &other.1)]);
    assert_eq!(found.repeatable, Some(false));
    assert!(found.reasons.iter().any(|reason| reason.contains("the model is not the same")), "{found:?}");
    assert_eq!(repeatability(&[(&quiet.0.0, &quiet.0.1)]).repeatable, None);
}

#[test]
fn a_slowdown_is_found_and_unequal_sides_are_labelled() {
    let (first, same) =
        (session(&Simulated::default()), session(&Simulated { seed: 2, ..Simulated::default() }));
    let found = compare((&first.0, &first.1), (&same.0, &same.1));
    assert!(found.unequal.is_empty(), "{:?}", found.unequal);
    assert!(found.rows.len() > 6 && found.worse_by(1.0).next().is_none(), "{:#?}", found.rows);
    let slow = session(&Simulated { seed: 3, slowdown: 0.05, ..Simulated::default() });
    let found = compare((&first.0, &first.1), (&slow.0, &slow.1));
    let row =
        found.rows.iter().find(|row| row.metric == "decode_tokens_per_s" && row.case == "warm-512").unwrap();
    assert_eq!(row.change, Change::Worse, "{row:?}");
    assert!((row.worse_percent() - 4.8).abs() < 1.5, "{row:?}");
    assert!(found.worse_by(3.0).next().is_some() && found.worse_by(20.0).next().is_none());
    let other = session(&Simulated {
        model: "qwen".to_owned(),
        bandwidth_bytes_per_s: 5.0e10,
        ..Simulated::default()
    });
    let found = compare((&first.0, &first.1), (&other.0, &other.1));
    assert_eq!(found.unequal[0].says, "the models differ: smollm2:135m and qwen");
    assert!(found.unequal[1].says.starts_with("the memory bandwidth differs by 2"), "{:?}", found.unequal);
    assert_eq!(found.misleads().count(), 2);
    // Whatever `--fail-on` says: it cannot be judged, and that is no success.
    let Gate::Unequal(what) = found.gate(99.0) else { panic!("{:?}", found.gate(99.0)) };
    assert_eq!(what[0], "the models differ: smollm2:135m and qwen");
    let slower = compare((&first.0, &first.1), (&slow.0, &slow.1));
    let Gate::Worse(what) = slower.gate(3.0) else { panic!("{:?}", slower.gate(3.0)) };
    assert!(what.iter().any(|row| row.starts_with("decode_tokens_per_s of warm-512 by ")), "{what:?}");
    assert_eq!(slower.gate(20.0), Gate::Passed);
    let mut none = same.0.clone();
    none.requests.clear();
    assert_eq!(compare((&first.0, &first.1), (&none, &summarize(&none))).gate(1.0), Gate::Nothing);
    let mut rebuilt = same;
    rebuilt.0.trial.tool.binary_sha256 = firepot_machine::Reading::Known("f".repeat(64));
    let found = compare((&first.0, &first.1), (&rebuilt.0, &rebuilt.1));
    assert!(found.unequal[0].says.starts_with("the programs differ"), "{:?}", found.unequal);
    assert_eq!(found.misleads().count(), 0, "another build of the program is what a comparison is for");
}

#[test]
fn models_without_digests_are_labelled_on_both_sides() {
    let unknown = |name: &str| {
        let mut session = session(&Simulated { samples: 6, ..Simulated::default() });
        let model = &mut session.0.models.models[0];
        model.sha256 = firepot_machine::Reading::absent("the server does not show the file");
        name.clone_into(&mut model.name);
        session
    };
    let (one, same, other) = (unknown("a"), unknown("a"), unknown("b"));
    let found = compare((&one.0, &one.1), (&same.0, &same.1));
    assert!(found.unequal[0].says.starts_with("whether a is the same file on both sides is not known"));
    assert_eq!(found.misleads().count(), 0, "it may be the same");
    let found = compare((&one.0, &one.1), (&other.0, &other.1));
    assert!(found.unequal[0].says.starts_with("the models have different names, a and b"));
    assert_eq!(found.misleads().count(), 1);
}

/// Two servers of one trial are labelled as two bundles are.
#[test]
fn two_servers_with_different_models_or_machines_are_labelled() {
    let (mut bundle, _) = session(&Simulated { samples: 12, ..Simulated::default() });
    let second: Vec<_> =
        bundle.requests.iter().map(|request| Request { target: "b".to_owned(), ..request.clone() }).collect();
    bundle.requests.extend(second);
    let target = Target { id: "b".to_owned(), ..bundle.workload.targets[0].clone() };
    bundle.workload.targets.push(target);
    let model = Model { target: "b".to_owned(), ..bundle.models.models[0].clone() };
    bundle.models.models.push(model);
    let found = versus(&bundle, &summarize(&bundle)).unwrap();
    assert!(!found.rows.is_empty() && found.unequal.is_empty(), "{:?}", found.unequal);
    "qwen".clone_into(&mut bundle.models.models[1].name);
    bundle.models.models[1].sha256 = firepot_machine::Reading::Known("0".repeat(64));
    bundle.workload.targets[1].on_this_machine = false;
    let found = versus(&bundle, &summarize(&bundle)).unwrap();
    let told: Vec<&str> = found.misleads().collect();
    assert_eq!(told[0], "the models differ: smollm2:135m and qwen");
    assert!(told[1].starts_with("the servers ran on different machines"), "{told:?}");
    let sessions = [(bundle.clone(), summarize(&bundle))];
    let page = report::markdown(&report::Input { sessions: &sessions, claims: &[] });
    assert!(page.contains("**unequal**: the models differ: smollm2:135m and qwen"), "{page}");
}

#[test]
fn a_bundle_of_a_newer_firepot_is_refused_by_all_that_read_it() {
    let dir = written(&Simulated { samples: 6, ..Simulated::default() });
    let out = dir.path().join("shared.tar.gz");
    let newer = |name: &str| {
        let path = dir.path().join(name);
        let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        value["schema"] = 9.into();
        write_atomic(&path, format!("{value:#}\n").as_bytes()).unwrap();
    };
    let is_newer =
        |error: &BundleError| matches!(error, BundleError::NewerSchema { found: 9, supported: SCHEMA });
    // Of `report` and `compare` it is the opening; both files say it, or the manifest alone.
    for name in ["manifest.json", "trial.json"] {
        newer(name);
        assert!(is_newer(&Bundle::open(dir.path()).unwrap_err()), "{name}");
        assert!(is_newer(&check(dir.path()).unwrap_err()), "{name}");
        let error = share(dir.path(), &out, &Identity::default()).unwrap_err();
        assert!(is_newer(&error) && error.hint().unwrap().contains("newer"), "{name}");
    }
}

/// A manifest that this Firepot knows, with a `trial.json` that it does not.
#[test]
fn a_newer_trial_under_a_known_manifest_is_no_damage() {
    let dir = written(&Simulated { samples: 6, ..Simulated::default() });
    let (trial, manifest) = (dir.path().join("trial.json"), dir.path().join("manifest.json"));
    let bytes = fs::read_to_string(&trial).unwrap().replacen("\"schema\": 1", "\"schema\": 9", 1);
    write_atomic(&trial, bytes.as_bytes()).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    value["files"]["trial.json"] = serde_json::to_value(FileEntry::of(bytes.as_bytes())).unwrap();
    write_atomic(&manifest, value.to_string().as_bytes()).unwrap();
    for error in [check(dir.path()).unwrap_err(), Bundle::open(dir.path()).unwrap_err()] {
        assert!(matches!(error, BundleError::NewerSchema { found: 9, .. }), "{error}");
    }
}

#[test]
fn a_report_is_the_same_each_time_small_and_without_script() {
    let sessions = [session(&Simulated::default())];
    let all = [claims("cpu-smollm2.toml"), claims("refuted-example.toml")];
    let input = report::Input { sessions: &sessions, claims: &all };
    let page = report::html(&input);
    assert_eq!(page, report::html(&input));
    assert!(page.len() < 1_500_000, "{} bytes", page.len());
    for forbidden in ["<script", "http://", "https://", "url(", "@import", "src="] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(page.matches("<svg").count() >= 7, "{} drawings", page.matches("<svg").count());
    assert!(page.find("confirmed").unwrap() < page.find("<svg").unwrap(), "verdicts come first");
    let markdown = report::markdown(&input);
    assert!(
        markdown.contains("| decode\\_tokens") || markdown.contains("| decode_tokens_per_s |"),
        "{markdown}"
    );
    let csv = report::csv(&input);
    assert!(csv.lines().all(|line| line.matches(',').count() >= 9) && csv.lines().count() > 60);
    let llama_bench: serde_json::Value = serde_json::from_str(&report::llama_bench(&input)).unwrap();
    assert_eq!(llama_bench[1]["n_gen"], 32);
    assert_eq!(llama_bench[1]["samples_ts"].as_array().unwrap().len(), 18);
}

#[test]
fn a_foreign_name_is_no_markup_in_a_report() {
    let mut hostile = session(&Simulated { samples: 6, ..Simulated::default() });
    hostile.0.models.models[0].name = "<script>alert(1)</script>|`x`".to_owned();
    hostile.0.workload.targets[0].server = "\"><img src=x onerror=y>".to_owned();
    let sessions = [hostile];
    let input = report::Input { sessions: &sessions, claims: &[] };
    let page = report::html(&input);
    assert!(!page.contains("<script") && !page.contains("<img"));
    let markdown = report::markdown(&input);
    assert!(markdown.match_indices('<').all(|(at, _)| markdown[..at].ends_with('\\')), "{markdown}");
}

#[test]
fn published_schemas_are_those_of_the_types() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
    for (file, schema) in crate::schema::schemas() {
        let path = dir.join(crate::schema::file_name(file));
        let published = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            published == crate::schema::text(&schema),
            "{} is stale: run `cargo xtask schemas`",
            path.display()
        );
    }
}

#[test]
fn a_written_bundle_keeps_to_the_schemas() {
    let dir = written(&Simulated { samples: 6, ..Simulated::default() });
    for (file, schema) in crate::schema::schemas() {
        let validator = jsonschema::validator_for(schema.as_value()).unwrap();
        let text = fs::read_to_string(dir.path().join(file)).unwrap();
        let values: Vec<serde_json::Value> = if file.contains(".jsonl") {
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        } else {
            vec![serde_json::from_str(&text).unwrap()]
        };
        assert!(!values.is_empty(), "{file}");
        for value in values {
            let error = validator.validate(&value).err().map(|error| error.to_string());
            assert_eq!(error, None, "{file}: {value}");
        }
    }
}

#[test]
#[ignore = "writes docs/schema and docs/statistics.md, as `cargo xtask schemas` and `check-statistics` do, without building those"]
fn publish() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    crate::schema::publish(&docs.join("schema")).unwrap();
    let (page, missed) = crate::simulation::document();
    write_atomic(&docs.join("statistics.md"), page.as_bytes()).unwrap();
    // What is not reached is on the page.
    println!("{missed:#?}");
}

#[test]
#[ignore = "writes a report of a simulated trial to look at, to target/report.html"]
fn look() {
    let sessions = [session(&Simulated::default())];
    let all = [claims("cpu-smollm2.toml"), claims("refuted-example.toml"), claims("kaggle-t4x2.toml")];
    let input = report::Input { sessions: &sessions, claims: &all };
    let started = std::time::Instant::now();
    let page = report::html(&input);
    println!("{} bytes in {:?}", page.len(), started.elapsed());
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    write_atomic(&target.join("report.html"), page.as_bytes()).unwrap();
    write_atomic(&target.join("report.md"), report::markdown(&input).as_bytes()).unwrap();
    let dir = written(&Simulated::default());
    let started = std::time::Instant::now();
    let checked = check(dir.path()).unwrap();
    println!("checked {} bytes in {:?}", checked.bytes, started.elapsed());
}
