//! `firepot run`: ask a model in the terminal.

use std::{
    io::{IsTerminal, Read, Write, stdin, stdout},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{Stream, StreamExt};
use rustyline::{DefaultEditor, error::ReadlineError};
use serde_json::{Value, json};

use crate::{
    attach::{self, Attached},
    cli::Run,
    client::Client,
    commands::{
        calibrate::{self, Stored},
        pull::find_or_pull,
    },
    exit::{Exit, Failure},
    settings::Settings,
};

const REPL_HELP: &str = "\
/clear          forget the conversation
/system TEXT    set the system prompt
/help           show this
/bye            leave (also Ctrl-D)
Ctrl-C ends an answer. \"\"\" begins and ends a question of several lines.";

/// Answers one question, or holds a conversation when nothing is asked and a person types.
pub async fn run(settings: &Settings, args: Run) -> anyhow::Result<()> {
    let question = question(&args)?;
    if !settings.address_named {
        let model = find_or_pull(settings, &settings.open_home()?, &args.model).await?;
        // A single question is answered sooner without.
        let measures = question.is_none() && !args.no_calibration;
        if measures && attach::own(settings).await?.is_none() {
            tokio::task::block_in_place(|| calibrate::before_load(settings, &model, Stored::Believed));
        }
    }
    let server = Attached::find_or_start(settings, &args.load).await?;
    let mut conversation = Conversation::new(server.client().clone(), args);
    let outcome = match question {
        Some(question) => conversation.ask(question).await,
        None => conversation.repl().await,
    };
    server.stop().await?;
    outcome
}

/// What was asked on the command line and standard input; `None` means a conversation.
fn question(args: &Run) -> anyhow::Result<Option<String>> {
    let mut parts: Vec<String> = Vec::new();
    if !args.prompt.is_empty() {
        parts.push(args.prompt.join(" "));
    }
    if !stdin().is_terminal() {
        let mut bytes = Vec::new();
        stdin().lock().read_to_end(&mut bytes).context("standard input cannot be read")?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Failure::new(Exit::Failed, "standard input is not valid UTF-8"))?;
        if !text.trim().is_empty() {
            parts.push(text);
        }
        if parts.is_empty() {
            return Err(Failure::new(Exit::Failed, "nothing was asked")
                .hint("give a prompt, or pipe one in: echo \"why?\" | firepot run MODEL")
                .into());
        }
    }
    Ok((!parts.is_empty()).then(|| parts.join("\n\n")))
}

struct Conversation {
    client: Client,
    args: Run,
    messages: Vec<Value>,
}

impl Conversation {
    fn new(client: Client, args: Run) -> Self {
        let mut conversation = Self { client, args, messages: Vec::new() };
        conversation.clear();
        conversation
    }

    fn clear(&mut self) {
        self.messages =
            self.args.system.iter().map(|text| json!({"role": "system", "content": text})).collect();
    }

    async fn repl(&mut self) -> anyhow::Result<()> {
        self.load().await?;
        let mut editor = DefaultEditor::new()?;
        eprintln!("{} is ready. /help shows what can be typed.", self.args.model);
        loop {
            let line = match read_question(&mut editor) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let _ = editor.add_history_entry(line.as_str());
            match line.trim() {
                "" => {}
                "/bye" | "/exit" => return Ok(()),
                "/clear" => self.clear(),
                "/help" | "/?" => eprintln!("{REPL_HELP}"),
                command if command.starts_with('/') => self.command(command),
                _ => self.ask_and_report(line).await,
            }
        }
    }

    fn command(&mut self, command: &str) {
        match command.strip_prefix("/system ") {
            Some(text) => {
                self.args.system = Some(text.trim().to_owned());
                self.clear();
            }
            None => eprintln!("error: no such command: {command}\nhint: /help lists them"),
        }
    }

    /// Loads the model before the first question, so that a wrong name is known at once.
    async fn load(&self) -> anyhow::Result<()> {
        let body = json!({"model": self.args.model, "stream": false});
        let _: Value = self.client.post("/api/generate", &body).await?;
        Ok(())
    }

    /// In a conversation, a failed answer is reported and the conversation goes on.
    async fn ask_and_report(&mut self, question: String) {
        let turns = self.messages.len();
        if let Err(error) = self.ask(question).await {
            self.messages.truncate(turns);
            eprintln!("error: {error:#}");
        }
    }

    async fn ask(&mut self, question: String) -> anyhow::Result<()> {
        self.messages.push(json!({"role": "user", "content": question}));
        let lines = self.client.post_lines("/api/chat", &self.body()).await?;
        let mut printer = Printer::new(self.args.hide_thinking);
        let last = tokio::select! {
            last = print_answer(lines, &mut printer) => last?,
            _ = tokio::signal::ctrl_c() => None,
        };
        let answer = printer.end();
        self.messages.push(json!({"role": "assistant", "content": answer}));
        match last {
            Some(last) if self.args.verbose => eprintln!("{}", counts(&last)),
            Some(last) => warn_if_cut(&last),
            None => eprintln!("(stopped)"),
        }
        Ok(())
    }

    fn body(&self) -> Value {
        let mut options = serde_json::Map::new();
        let mut set =
            |name: &str, value: Option<Value>| value.map(|value| options.insert(name.to_owned(), value));
        set("temperature", self.args.temperature.map(Value::from));
        set("seed", self.args.seed.map(Value::from));
        set("num_predict", self.args.max_tokens.map(Value::from));
        set("num_ctx", self.args.load.ctx.map(Value::from));
        let mut body = json!({"model": self.args.model, "messages": self.messages, "options": options});
        if let Some(think) = &self.args.think {
            body["think"] = think.parse::<bool>().map_or_else(|_| json!(think), Value::from);
        }
        body
    }
}

/// One line, or several between `"""`.
fn read_question(editor: &mut DefaultEditor) -> Result<String, ReadlineError> {
    let first = editor.readline(">>> ")?;
    let Some(mut text) = first.trim_start().strip_prefix("\"\"\"").map(str::to_owned) else {
        return Ok(first);
    };
    while !text.trim_end().ends_with("\"\"\"") {
        text.push('\n');
        text.push_str(&editor.readline("... ")?);
    }
    Ok(text.trim_end().trim_end_matches("\"\"\"").to_owned())
}

async fn print_answer(
    lines: impl Stream<Item = anyhow::Result<Value>>,
    printer: &mut Printer,
) -> anyhow::Result<Option<Value>> {
    let mut lines = std::pin::pin!(lines);
    while let Some(line) = lines.next().await {
        let line = line?;
        printer.thinking(line["message"]["thinking"].as_str().unwrap_or_default())?;
        printer.content(line["message"]["content"].as_str().unwrap_or_default())?;
        if line["done"] == true {
            return Ok(Some(line));
        }
    }
    anyhow::bail!("the server ended its answer without saying so")
}

/// Writes an answer as it comes: thinking dimmed on a terminal, then the content.
struct Printer {
    hide_thinking: bool,
    dim: bool,
    in_thinking: bool,
    content: String,
}

impl Printer {
    fn new(hide_thinking: bool) -> Self {
        Self { hide_thinking, dim: stdout().is_terminal(), in_thinking: false, content: String::new() }
    }

    fn thinking(&mut self, text: &str) -> std::io::Result<()> {
        if text.is_empty() || self.hide_thinking {
            return Ok(());
        }
        if !self.in_thinking {
            self.in_thinking = true;
            write_now(if self.dim { "\x1b[2m" } else { "Thinking...\n" })?;
        }
        write_now(text)
    }

    fn content(&mut self, text: &str) -> std::io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if self.in_thinking {
            self.in_thinking = false;
            write_now(if self.dim { "\x1b[0m\n\n" } else { "\n...done thinking.\n\n" })?;
        }
        self.content.push_str(text);
        write_now(text)
    }

    /// Ends the line and gives back the answer's content.
    fn end(self) -> String {
        let _ = write_now(if self.dim && self.in_thinking { "\x1b[0m\n" } else { "\n" });
        self.content
    }
}

fn write_now(text: &str) -> std::io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn warn_if_cut(last: &Value) {
    if last["done_reason"] == "length" {
        eprintln!("(the answer reached its token limit)");
    }
    if let Some(dropped) = last["dropped_messages"].as_u64() {
        eprintln!(
            "(the conversation is longer than the context: the {dropped} oldest messages were left out)"
        );
    }
}

fn counts(last: &Value) -> String {
    let rate =
        |tokens: u64, duration: Duration| tokens as f64 / duration.as_secs_f64().max(f64::MIN_POSITIVE);
    let number = |name: &str| last[name].as_u64().unwrap_or_default();
    let duration = |name: &str| Duration::from_nanos(number(name));
    let computed = number("prompt_eval_count").saturating_sub(number("prompt_eval_cached_count"));
    let mut parts = vec![format!(
        "prompt {} tokens ({} from cache)",
        number("prompt_eval_count"),
        number("prompt_eval_cached_count")
    )];
    if computed > 0 && number("prompt_eval_duration") > 0 {
        parts.push(format!("prefill {:.1} tokens/s", rate(computed, duration("prompt_eval_duration"))));
    }
    parts.push(format!("answer {} tokens", number("eval_count")));
    if number("eval_count") > 1 && number("eval_duration") > 0 {
        parts.push(format!(
            "decode {:.1} tokens/s",
            rate(number("eval_count") - 1, duration("eval_duration"))
        ));
    }
    parts.push(format!("ended by {}", last["done_reason"].as_str().unwrap_or("?")));
    parts.join(", ")
}
