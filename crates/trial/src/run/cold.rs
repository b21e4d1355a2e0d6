//! A cold start: the model's runner is gone, its file on disk, and the first token is awaited.

use firepot_measure::bundle::{Case, Phase};

use super::{Side, Trial, TrialError, patience, sample::Place};
use crate::{error::TargetError, fault, prompt};

impl Trial {
    /// Unloads, asks, and notes when the new process was there.
    pub(super) async fn cold(&self, case: &Case, side: &Side) -> Result<bool, TrialError> {
        if let Err(error) = side.target.unload(&side.model).await {
            self.give_up(side, Some(error))?;
        }
        let index = self.done().next(&case.id, &side.id);
        let ask =
            self.question_of(case, side, prompt::fresh(case.seed, u64::from(index), case.prompt_tokens));
        let known = side.target.server_pid().map(fault::runners).unwrap_or_default();
        let spawned = async {
            let server = side.target.server_pid()?;
            fault::runner_appears(server, &known, patience()).await?;
            Some(self.clock.us())
        };
        let answer = async {
            let answer = self.ask(side, &ask, |_| {}).await;
            // A request that was refused starts no process that could be waited for.
            let refused = answer.1.is_some();
            (answer, refused)
        };
        tokio::pin!(spawned, answer);
        let (spawned_us, (seen, error)) = tokio::select! {
            spawned_us = &mut spawned => (spawned_us, answer.await.0),
            (answer, _) = &mut answer => (None, answer),
        };
        let place = Place { case, side, index, stream: 0, phase: Phase::Sample };
        let mut request = self.request(place, &seen, error.as_ref());
        request.spawned_us = spawned_us;
        request.ready_us = request.server.load_us.map(|load_us| request.client.sent_us + load_us);
        let good = self.keep(case, std::slice::from_ref(&request))?;
        self.give_up(side, error.filter(TargetError::is_lasting))?;
        Ok(good)
    }
}
