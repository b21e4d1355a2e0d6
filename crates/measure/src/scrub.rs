//! Text without names, paths, addresses and hosts of whoever measured.
//!
//! Only fields whose text is free are looked at: what a program reads, such as the kind of a target, may be spelled like the user's name.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::Value;

use crate::bundle::File;

/// Shorter names are parts of too many words.
const SHORTEST: usize = 3;

/// Whose traces are taken out, besides paths and addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Names of the user and of the machine.
    pub names: Vec<String>,
}

/// A text without names, paths and addresses.
#[must_use]
pub fn without_traces(text: &str, identity: &Identity) -> String {
    Scrubber::new(identity, &[]).text(text)
}

/// Takes traces out of texts, and says the same of the same address each time.
pub(crate) struct Scrubber<'a> {
    identity: &'a Identity,
    /// Hosts by name, in the order in which they are numbered.
    hosts: Vec<&'a str>,
    /// Addresses so far, with the words that stand for them.
    addresses: BTreeMap<IpAddr, String>,
}

/// What of a value is free text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Free {
    /// Nothing but reasons and what a field's name says.
    Fields,
    /// All of it.
    All,
    /// All but the first word, which is a program's name.
    AfterFirst,
    /// It is a host.
    Host,
}

impl<'a> Scrubber<'a> {
    /// `hosts`: those that the session names; addresses among them are found as such.
    pub(crate) fn new(identity: &'a Identity, hosts: &[&'a str]) -> Self {
        let mut hosts: Vec<&str> =
            hosts.iter().copied().filter(|host| host.parse::<IpAddr>().is_err()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        Self { identity, hosts, addresses: BTreeMap::new() }
    }

    /// Takes traces out of a file's value, or of a line's.
    pub(crate) fn value(&mut self, file: File, value: &mut Value) {
        let free = if matches!(file, File::Absent | File::ProofLoaded | File::ProofVersions) {
            Free::All
        } else {
            Free::Fields
        };
        self.within(file, free, value);
    }

    fn within(&mut self, file: File, free: Free, value: &mut Value) {
        match value {
            Value::String(text) => match free {
                Free::Fields => {}
                Free::All => *text = self.text(text),
                Free::AfterFirst => {
                    if let Some((first, rest)) = text.split_once(' ') {
                        *text = format!("{first} {}", self.text(rest));
                    }
                }
                Free::Host => *text = self.host(text).unwrap_or_else(|| self.text(text)),
            },
            Value::Array(values) => values.iter_mut().for_each(|value| self.within(file, free, value)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    let of_field = if free == Free::Fields { is_free(file, name) } else { free };
                    self.within(file, of_field, value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Words of a text, each looked at by itself: white space and quotes part them.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let word = rest.find(is_between).unwrap_or(rest.len());
            out.push_str(&self.word(&rest[..word]));
            let between = rest[word..].find(|c| !is_between(c)).unwrap_or(rest.len() - word);
            out.push_str(&rest[word..word + between]);
            rest = &rest[word + between..];
        }
        out
    }

    fn word(&mut self, word: &str) -> String {
        if let Some(at) = path_in(word) {
            let (before, path) = word.split_at(at);
            let name = path.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or_default();
            let before = if before.is_empty() { String::new() } else { self.word(before) };
            return format!("{before}(path)/{}", self.named(name));
        }
        if word.contains('@') && word.contains('.') {
            return "(e-mail)".to_owned();
        }
        let bare = word.trim_end_matches([':', '.', '!', '?', '}']);
        for part in [word, bare] {
            if let Some(told) = self.address(part) {
                return format!("{told}{}", &word[part.len()..]);
            }
        }
        self.named(word)
    }

    /// An address, with or without scheme and port; loopback is nobody's.
    fn address(&mut self, word: &str) -> Option<String> {
        let (scheme, rest) = word.split_once("://").unwrap_or(("", word));
        let host = rest.split('/').next().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.split(']').next()).unwrap_or(host);
        let ip: IpAddr = host.parse().ok().or_else(|| host.rsplit_once(':')?.0.parse().ok())?;
        // Four numbers with dots may be a version as well; a bare one that is no address of a network stays.
        if ip.is_loopback() || ip.is_unspecified() {
            return None;
        }
        let count = self.addresses.len() + 1;
        let told = self.addresses.entry(ip).or_insert_with(|| format!("(address {count})")).clone();
        Some(if scheme.is_empty() { told } else { format!("{scheme}://{told}") })
    }

    fn host(&self, host: &str) -> Option<String> {
        let number = 1 + self.hosts.iter().position(|known| *known == host)?;
        Some(format!("(host {number})"))
    }

    fn named(&self, word: &str) -> String {
        let mut word = word.to_owned();
        for host in self.hosts.iter().filter(|host| host.len() >= SHORTEST) {
            word = replace_whole(&word, host, &self.host(host).unwrap_or_default());
        }
        let long = self.identity.names.iter().filter(|name| name.len() >= SHORTEST);
        long.fold(word, |word, name| word.replace(name.as_str(), "(name)"))
    }
}

/// Which text of a field is free. A name that is in no list is of what programs read.
fn is_free(file: File, field: &str) -> Free {
    let all = match file {
        File::Trial => matches!(field, "build_flags"),
        File::Machine | File::Calibration | File::Plan => field == "details",
        File::Model => matches!(field, "name" | "revision"),
        File::Requests => field == "message",
        File::Restarts => field == "error",
        File::Events => matches!(field, "reason" | "text"),
        File::Quality => field == "answer",
        File::Session => matches!(field, "source" | "settings"),
        _ => false,
    };
    match (file, field) {
        // Why something is not there.
        (_, "absent") => Free::All,
        (File::Workload, "server") => Free::AfterFirst,
        (File::Session, "hosts_contacted" | "hosts_expected") => Free::Host,
        _ if all => Free::All,
        _ => Free::Fields,
    }
}

/// Replaces a host where it is a word of its own.
fn replace_whole(text: &str, host: &str, by: &str) -> String {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '-');
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (at, _) in text.match_indices(host) {
        let end = at + host.len();
        if is_part(text[..at].chars().next_back()) || is_part(text[end..].chars().next()) {
            continue;
        }
        out.push_str(&text[copied..at]);
        out.push_str(by);
        copied = end;
    }
    out + &text[copied..]
}

fn is_between(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ';' | '(' | ')' | '<' | '>' | '=')
}

/// Where a path begins in a word: at its beginning, or behind a mark such as `:`, `[` or `{`.
fn path_in(word: &str) -> Option<usize> {
    let begins = |at: usize| match word[..at].chars().next_back() {
        None => true,
        Some(before) => before.is_ascii_punctuation() && !"/.-_~%+\\".contains(before),
    };
    word.char_indices().map(|(at, _)| at).find(|&at| begins(at) && is_path(&word[at..]))
}

/// A path with at least two parts, absolute or from a home or a drive.
fn is_path(word: &str) -> bool {
    let bytes = word.as_bytes();
    let drive = bytes.len() > 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':' && bytes[2] == b'\\';
    let absolute = word.starts_with('/') && !word.starts_with("//") && word[1..].contains('/');
    drive || absolute || word.starts_with("~/") || word.starts_with("file://") || word.starts_with("\\\\")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity() -> Identity {
        Identity { names: vec!["shivansh".to_owned(), "lenovo-7".to_owned()] }
    }

    fn scrub(text: &str) -> String {
        without_traces(text, &identity())
    }

    #[test]
    fn names_paths_and_addresses_go_and_the_rest_stays() {
        assert_eq!(scrub("could not open /home/shivansh/models/a.gguf"), "could not open (path)/a.gguf");
        assert_eq!(scrub("C:\\Users\\x\\b.gguf on lenovo-7"), "(path)/b.gguf on (name)");
        assert_eq!(scrub("http://192.168.0.7:11434/api, 192.168.0.7"), "http://(address 1), (address 1)");
        assert_eq!(scrub("http://[fe80::1]:80 10.0.0.1:22"), "http://(address 1) (address 2)");
        assert_eq!(scrub("ask a.b@example.org"), "ask (e-mail)");
        for kept in [
            "http://127.0.0.1:11434",
            "Intel(R) Xeon(R) CPU @ 2.00GHz",
            "tokens/s and 4/5",
            "application/json",
            "hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M",
            "https://huggingface.co/a/b",
            "580.105.08",
            "a  b\n",
        ] {
            assert_eq!(scrub(kept), kept);
        }
    }

    #[test]
    fn a_path_or_an_address_beside_a_mark_is_found() {
        assert_eq!(scrub("error:/home/x/y.gguf: no such file"), "error:(path)/y.gguf: no such file");
        assert_eq!(scrub("[/home/x/y] {/srv/x/z} PATH=/a/b:/c/d"), "[(path)/y] {(path)/z} PATH=(path)/d");
        assert_eq!(scrub("dir:~/models"), "dir:(path)/models");
        let refused = "no server answers at http://10.1.2.3:11434: connection refused by 10.1.2.3.";
        let told = "no server answers at http://(address 1): connection refused by (address 1).";
        assert_eq!(scrub(refused), told);
    }

    #[test]
    fn hosts_of_the_session_go_wherever_a_text_names_them() {
        let identity = identity();
        let mut scrubber = Scrubber::new(&identity, &["10.0.0.9", "gpu.lan", "gpu.lan"]);
        let told =
            scrubber.text("no server answers at http://gpu.lan:11434: gpu.lan is down, my-gpu.lan is not");
        assert_eq!(told, "no server answers at http://(host 1):11434: (host 1) is down, my-gpu.lan is not");
        let mut session = json!({
            "hosts_contacted": ["10.0.0.9"], "hosts_expected": ["10.0.0.9", "gpu.lan"],
            "settings": {"target": "http://gpu.lan/v1"}, "cost": {"currency": "EUR", "source": "shivansh says so"},
        });
        scrubber.value(File::Session, &mut session);
        let expected = json!({
            "hosts_contacted": ["(address 1)"], "hosts_expected": ["(address 1)", "(host 1)"],
            "settings": {"target": "http://(host 1)/v1"}, "cost": {"currency": "EUR", "source": "(name) says so"},
        });
        assert_eq!(session, expected);
    }

    #[test]
    fn what_programs_read_stays_whatever_the_user_is_called() {
        let identity = Identity { names: vec!["firepot".to_owned(), "warm".to_owned()] };
        let mut scrubber = Scrubber::new(&identity, &[]);
        let mut workload = json!({
            "targets": [{"id": "a", "kind": "firepot", "server": "firepot 0.1.0 of firepot"}],
            "cases": [{"id": "warm-512", "kind": "warm"}],
        });
        scrubber.value(File::Workload, &mut workload);
        assert_eq!(workload["targets"][0]["server"], "firepot 0.1.0 of (name)");
        assert_eq!(
            (&workload["targets"][0]["kind"], &workload["cases"][0]["kind"]),
            (&json!("firepot"), &json!("warm"))
        );
        let mut event = json!({"event": "skipped", "case": "warm-512", "reason": "firepot is not warm"});
        scrubber.value(File::Events, &mut event);
        assert_eq!(event, json!({"event": "skipped", "case": "warm-512", "reason": "(name) is not (name)"}));
        let mut machine = json!({"platform": "firepot", "cores": {"absent": "firepot hides it"}});
        scrubber.value(File::Machine, &mut machine);
        assert_eq!(machine, json!({"platform": "firepot", "cores": {"absent": "(name) hides it"}}));
    }
}
