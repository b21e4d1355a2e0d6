//! The journal: what was asked for, and what was told of each answer, so that an answer outlives the server.
//!
//! One commit takes what a tick of the engine gave, for all answers at once; who writes it and when is the server's
//! business. What a call and an event are is the server's business too: here they are bytes. The SQL of one table is in
//! `journal_rows`.

use jiff::Timestamp;

use crate::{ChatId, Database, Digest, MessageId, StoreError, clock, journal_rows as rows};

/// An answer, as the journal names it; unique within a home.
pub type GenerationId = u64;

/// How an answer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GenerationState {
    /// Some server makes it, or made it when it died.
    Running,
    /// Its server ended before it did; it can go on.
    Interrupted,
    /// It is complete.
    Finished,
    /// It ended with an error.
    Failed,
    /// Somebody cancelled it, or went away.
    Cancelled,
}

/// How a request can be sent again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Whose key it is: a hash of credentials. Others with the same key mean another request.
    pub scope: [u8; 32],
    /// What the client gave.
    pub key: String,
}

/// An answer that is begun.
#[derive(Clone, Debug, PartialEq)]
pub struct NewGeneration {
    /// Its name.
    pub id: GenerationId,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Who answers.
    pub model: String,
    /// That model's weights: another file under the same name does not go on with the answer.
    pub model_digest: Digest,
    /// How the request can be sent again, with a hash of what it asks for.
    pub key: Option<(RequestKey, [u8; 32])>,
    /// Which of the answers to one request.
    pub choice: u32,
    /// What was asked for.
    pub call: Vec<u8>,
}

/// An answer of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// As it was begun.
    pub begun: NewGeneration,
    /// How it stands.
    pub state: GenerationState,
    /// When that, or its number of events, last changed.
    pub changed_at: Timestamp,
    /// The message of a chat that it fills.
    pub message: Option<(ChatId, MessageId)>,
    /// How many events there are.
    pub events: u32,
}

/// An event of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalledEvent {
    /// When it was told, in microseconds since 1970.
    pub at_us: i64,
    /// What was told.
    pub event: Vec<u8>,
}

/// A change of the journal.
#[derive(Clone, Debug, PartialEq)]
pub enum JournalChange {
    /// An answer begins.
    Begin(Box<NewGeneration>),
    /// Something was told of it.
    Event {
        /// Of which.
        id: GenerationId,
        /// Its place, from 0 without gaps.
        seq: u32,
        /// When and what.
        event: JournalledEvent,
    },
    /// It stands otherwise.
    State {
        /// Which.
        id: GenerationId,
        /// How.
        state: GenerationState,
    },
}

/// The journal of a database.
#[derive(Clone, Copy, Debug)]
pub struct Journal<'a> {
    database: &'a Database,
}

impl<'a> Journal<'a> {
    pub(crate) const fn new(database: &'a Database) -> Self {
        Self { database }
    }

    /// Writes changes, all or none. An event of an answer that is not there (any more) is left out.
    ///
    /// # Errors
    /// A failure of the database; for one [`StoreError::DiskFull`].
    pub fn commit(self, changes: &[JournalChange]) -> Result<(), StoreError> {
        let now = clock::now();
        self.database.write(|tx| changes.iter().try_for_each(|change| rows::apply(tx, change, now)))
    }

    /// One answer.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn get(self, id: GenerationId) -> Result<Option<Generation>, StoreError> {
        self.database.read(|db| rows::select(db, id))
    }

    /// What was told of an answer, from the event at `from` on.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn events(self, id: GenerationId, from: u32) -> Result<Vec<JournalledEvent>, StoreError> {
        self.database.read(|db| rows::select_events(db, id, from))
    }

    /// The last of these.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn last_events(self, id: GenerationId, count: u32) -> Result<Vec<JournalledEvent>, StoreError> {
        let total = self.get(id)?.map_or(0, |generation| generation.events);
        self.events(id, total.saturating_sub(count))
    }

    /// The newest answers, newest first.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn list(self, limit: usize) -> Result<Vec<Generation>, StoreError> {
        self.database.read(|db| rows::select_newest(db, limit))
    }

    /// The answers to the request that came with this key, in the order of their choices.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn with_key(self, key: &RequestKey) -> Result<Vec<Generation>, StoreError> {
        self.database.read(|db| rows::select_with_key(db, key))
    }

    /// To be called before anything else when a server has begun: what a server before it left running counts as
    /// interrupted. Gives the answers that fill messages of chats, oldest first.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn recover(self) -> Result<Vec<Generation>, StoreError> {
        self.database.write(|tx| {
            rows::interrupt_all(tx, clock::now())?;
            rows::select_of_chats(tx)
        })
    }

    /// Forgets an answer.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn remove(self, id: GenerationId) -> Result<(), StoreError> {
        self.database.write(|tx| rows::remove(tx, id))
    }

    /// Forgets answers that ended before `ended`, those with a key before `ended_with_key`, and interrupted ones
    /// before `interrupted`; then the oldest ones but `most`. Answers that run or fill a message stay. Says how
    /// many went.
    ///
    /// # Errors
    /// A failure of the database.
    pub fn prune(
        self,
        ended: Timestamp,
        ended_with_key: Timestamp,
        interrupted: Timestamp,
        most: usize,
    ) -> Result<usize, StoreError> {
        self.database.write(|tx| {
            let old = rows::remove_old(tx, ended, ended_with_key, interrupted)?;
            Ok(old + rows::remove_but(tx, most)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;
    use crate::{
        NewChat,
        testing::{TestHome, user},
    };

    fn begun(id: GenerationId, key: Option<&str>) -> NewGeneration {
        NewGeneration {
            id,
            created_at: clock::now(),
            model: "tiny:latest".into(),
            model_digest: Digest::of(b"weights"),
            key: key.map(|key| (RequestKey { scope: [7; 32], key: key.into() }, [9; 32])),
            choice: 0,
            call: b"call".to_vec(),
        }
    }

    fn begin(id: GenerationId, key: Option<&str>) -> JournalChange {
        JournalChange::Begin(Box::new(begun(id, key)))
    }

    fn told(id: GenerationId, seq: u32) -> JournalChange {
        let event = JournalledEvent { at_us: i64::from(seq) + 100, event: vec![seq as u8] };
        JournalChange::Event { id, seq, event }
    }

    fn state(id: GenerationId, state: GenerationState) -> JournalChange {
        JournalChange::State { id, state }
    }

    fn bytes(events: &[JournalledEvent]) -> Vec<u8> {
        events.iter().flat_map(|event| event.event.clone()).collect()
    }

    #[test]
    fn what_was_told_comes_back_in_order_after_the_database_is_opened_again() {
        let test = TestHome::new();
        let database = test.home.database().unwrap();
        database.journal().commit(&[begin(1, None), told(1, 0), begin(2, None), told(2, 0)]).unwrap();
        database.journal().commit(&[told(1, 1), state(1, GenerationState::Finished)]).unwrap();
        test.home.sync_database().unwrap();
        drop(database);
        let database = test.home.database().unwrap();
        let journal = database.journal();
        let one = journal.get(1).unwrap().unwrap();
        assert_eq!(
            (one.state, one.events, &one.begun),
            (
                GenerationState::Finished,
                2,
                &NewGeneration { created_at: one.begun.created_at, ..begun(1, None) }
            )
        );
        assert_eq!(bytes(&journal.events(1, 0).unwrap()), [0, 1]);
        assert_eq!(bytes(&journal.events(1, 1).unwrap()), [1]);
        assert_eq!(bytes(&journal.last_events(1, 1).unwrap()), [1]);
        assert_eq!(journal.list(9).unwrap().iter().map(|one| one.begun.id).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_position_is_written_once() {
        let test = TestHome::new();
        let database = test.home.database().unwrap();
        database.journal().commit(&[begin(1, None), told(1, 0)]).unwrap();
        assert!(database.journal().commit(&[told(1, 1), told(1, 0)]).is_err());
        assert_eq!(bytes(&database.journal().events(1, 0).unwrap()), [0], "nothing of the commit is there");
    }

    #[test]
    fn a_key_belongs_to_its_scope_and_names_one_request() {
        let test = TestHome::new();
        let database = test.home.database().unwrap();
        let journal = database.journal();
        journal.commit(&[begin(1, Some("k"))]).unwrap();
        assert!(journal.commit(&[begin(2, Some("k"))]).is_err());
        let key = |scope| RequestKey { scope: [scope; 32], key: "k".into() };
        assert_eq!(journal.with_key(&key(7)).unwrap().len(), 1);
        assert_eq!(journal.with_key(&key(8)).unwrap().len(), 0);
    }

    #[test]
    fn what_a_dead_server_left_running_is_interrupted_and_chats_are_named() {
        let test = TestHome::new();
        let database = test.home.database().unwrap();
        let chat = database.chats().create(&NewChat::default()).unwrap().id;
        let messages = [user("question"), user("answer")];
        let stored = database.chats().ask(chat, &messages, &begun(3, None)).unwrap();
        database
            .journal()
            .commit(&[begin(1, None), begin(2, None), state(2, GenerationState::Finished)])
            .unwrap();
        let left = database.journal().recover().unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].begun.id, left[0].message), (3, Some((chat, stored[1].id))));
        let states: Vec<_> = database.journal().list(9).unwrap().iter().map(|one| one.state).collect();
        assert_eq!(
            states,
            [GenerationState::Finished, GenerationState::Interrupted, GenerationState::Interrupted]
        );
    }

    #[test]
    fn an_answer_of_a_chat_leaves_the_journal_with_its_last_words() {
        let test = TestHome::new();
        let database = test.home.database().unwrap();
        let chat = database.chats().create(&NewChat::default()).unwrap().id;
        let stored = database.chats().ask(chat, &[user("q"), user("")], &begun(3, None)).unwrap();
        database.journal().commit(&[told(3, 0)]).unwrap();
        let mut body = stored[1].body.clone();
        body.content = "whole".into();
        database.chats().settle(chat, stored[1].id, &body, 3).unwrap();
        assert_eq!(database.journal().get(3).unwrap(), None);
        assert_eq!(database.journal().events(3, 0).unwrap(), []);
        assert_eq!(database.chats().get(chat).unwrap().messages[1].body.content, "whole");
        database.journal().commit(&[told(3, 1)]).unwrap();
        assert_eq!(database.journal().events(3, 0).unwrap(), [], "what comes late is left out");
    }

    #[test]
    fn old_answers_go_and_running_ones_and_those_of_chats_stay() {
        let test = TestHome::new();
        let database = test.home.database().unwrap();
        let journal = database.journal();
        let chat = database.chats().create(&NewChat::default()).unwrap().id;
        database.chats().ask(chat, &[user("q"), user("")], &begun(9, None)).unwrap();
        journal.recover().unwrap();
        let ended = GenerationState::Finished;
        journal
            .commit(&[begin(1, None), begin(2, None), state(2, ended), begin(3, Some("k")), state(3, ended)])
            .unwrap();
        let (past, future) = (clock::now() - 1.hour(), clock::now() + 1.hour());
        let ids = || {
            let mut ids: Vec<_> = journal.list(9).unwrap().iter().map(|one| one.begun.id).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(journal.prune(past, past, past, 9).unwrap(), 0);
        assert_eq!(journal.prune(future, past, future, 9).unwrap(), 1);
        assert_eq!(ids(), [1, 3, 9]);
        assert_eq!(journal.prune(past, past, past, 0).unwrap(), 1);
        assert_eq!(ids(), [1, 9]);
    }
}
