//! What is known of a platform and no file of the machine says: where things outlive a session, what must be switched on by hand,
//! what its rules say. Each with its source and when it was read; none of it was tried on the platform itself.

use serde::Serialize;

use crate::PlatformKind;

/// The terms on which a platform lends its machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Terms {
    /// Its name.
    pub name: &'static str,
    /// The folder that outlives a session, for what is small and dear.
    pub saved: Option<SavedFolder>,
    /// How much of it is to be had.
    pub quota: Option<Quota>,
    /// What must be switched on by hand.
    pub switches: &'static [Switch],
    /// What its rules say of reaching the server from outside.
    pub public: Option<Rule>,
}

/// How much of a platform's GPUs an account has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// Hours of GPU in a week, where there is a number.
    pub gpu_hours_per_week: Option<u32>,
    /// What is said of it.
    pub fact: Fact,
}

/// A folder that outlives a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SavedFolder {
    /// Where it is.
    pub path: &'static str,
    /// Most bytes that are kept.
    pub limit_bytes: u64,
    /// On what it depends.
    pub fact: Fact,
}

/// Something that somebody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What.
    pub says: &'static str,
    /// Who, or where.
    pub source: &'static str,
    /// When it was last read there, as year and month.
    pub read: &'static str,
}

/// Something that must be switched on by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Switch {
    /// What is missing without it.
    pub gives: Gives,
    /// Where it is.
    pub fact: Fact,
}

/// What a switch gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gives {
    /// A way to the internet.
    Internet,
    /// A GPU.
    Gpu,
}

/// What rules say of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Whether they forbid it.
    pub forbids: bool,
    /// Their words.
    pub fact: Fact,
    /// What to do instead.
    pub instead: &'static str,
}

const fn fact(says: &'static str, source: &'static str) -> Fact {
    Fact { says, source, read: "2026-11" }
}

const KAGGLE: Terms = Terms {
    name: "Kaggle",
    saved: Some(SavedFolder {
        path: "/kaggle/working",
        limit_bytes: 20 << 30,
        fact: fact(
            "20 GB of /kaggle/working are kept; of an interactive session only with Persistence switched on",
            "Kaggle's documentation and product announcements, as its users quote them",
        ),
    }),
    quota: Some(Quota {
        gpu_hours_per_week: Some(30),
        fact: fact(
            "about 30 hours of GPU a week; `kaggle quota -v` says how much is left",
            "Kaggle's documentation, as its users quote it; kaggle-cli 2.2.1",
        ),
    }),
    switches: &[
        Switch {
            gives: Gives::Internet,
            fact: fact(
                "Settings > Turn on internet; it needs a verified phone number",
                "Kaggle's documentation (enable_internet is off by default); instructlab issue 355",
            ),
        },
        Switch {
            gives: Gives::Gpu,
            fact: fact(
                "Settings > Accelerator > GPU T4 x2; it needs a verified phone number",
                "kaggle-cli issues 1196 and 1198: NvidiaTeslaT4 is T4 x2",
            ),
        },
    ],
    public: Some(Rule {
        forbids: false,
        fact: fact(
            "\"Many forms of tunneling are automatically banned to prevent misuse, including frp\"",
            "Kaggle's staff, product feedback 377918",
        ),
        instead: "firepot.chat() talks inside the notebook and needs no tunnel",
    }),
};

const COLAB: Terms = Terms {
    name: "Colab",
    saved: None,
    quota: Some(Quota {
        gpu_hours_per_week: None,
        fact: fact(
            "what is free changes with demand; there is no fixed number of hours",
            "Colab's FAQ, research.google.com/colaboratory/faq.html",
        ),
    }),
    switches: &[Switch {
        gives: Gives::Gpu,
        fact: fact(
            "Runtime > Change runtime type > T4 GPU; most accounts without payment often get none",
            "Colab's FAQ; skill file of google-colab-cli",
        ),
    }],
    public: Some(Rule {
        forbids: true,
        fact: fact(
            "runtimes without paid compute units disallow \"bypassing the notebook UI to interact primarily via a web UI\", \"remote control such as SSH shells\" and \"connecting to remote proxies\"",
            "Colab's FAQ, research.google.com/colaboratory/faq.html, as quoted in amitness/colab-cloud issue 1",
        ),
        instead: "firepot.chat() talks inside the notebook and needs no web page",
    }),
};

const fn own(name: &'static str) -> Terms {
    Terms { name, saved: None, quota: None, switches: &[], public: None }
}

impl Terms {
    /// What is known of a platform.
    #[must_use]
    pub const fn of(kind: PlatformKind) -> Self {
        match kind {
            PlatformKind::Kaggle => KAGGLE,
            PlatformKind::Colab => COLAB,
            PlatformKind::Container => own("a container"),
            PlatformKind::Wsl2 => own("WSL2"),
            PlatformKind::Bare => own("a machine of one's own"),
        }
    }

    /// Where something is switched on, if that must be done by hand: `Kaggle: Settings > Turn on internet; …`.
    #[must_use]
    pub fn way_to(&self, gives: Gives) -> Option<String> {
        let switch = self.switches.iter().find(|switch| switch.gives == gives)?;
        Some(format!("{}: {}", self.name, switch.fact.says))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_free_colab_forbids_a_web_page_and_says_what_to_do_instead() {
        let all = [
            PlatformKind::Kaggle,
            PlatformKind::Colab,
            PlatformKind::Container,
            PlatformKind::Wsl2,
            PlatformKind::Bare,
        ];
        let forbids: Vec<_> =
            all.into_iter().filter(|kind| Terms::of(*kind).public.is_some_and(|rule| rule.forbids)).collect();
        assert_eq!(forbids, [PlatformKind::Colab]);
        for kind in all {
            let terms = Terms::of(kind);
            assert!(
                terms.public.is_none_or(
                    |rule| rule.instead.contains("firepot.chat()") && !rule.fact.source.is_empty()
                )
            );
        }
    }

    #[test]
    fn what_must_be_switched_on_is_found_by_what_it_gives() {
        let gpu = Terms::of(PlatformKind::Kaggle).way_to(Gives::Gpu).unwrap();
        assert!(gpu.starts_with("Kaggle: ") && gpu.contains("T4 x2"));
        assert!(Terms::of(PlatformKind::Bare).way_to(Gives::Internet).is_none());
    }
}
