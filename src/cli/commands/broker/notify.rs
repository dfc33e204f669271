//! `tmpcred broker notify`

use serde_json::{Value, json};
use uuid::Uuid;

use crate::broker::config;
use crate::broker::notify::{Channels, Message, Urgency, send_now};
use crate::broker::store::{self, NotifyStore as _, Store as _, Undelivered};
use crate::cli::args::{NotifyCommand, NotifyList, NotifyTest};
use crate::cli::{App, misuse, show};
use crate::error::{Error, ErrorKind, Result};
use crate::host::process;

/// Why a message waits that nobody has looked at.
const UNSEEN: &str = "no broker has looked at it yet";

pub(super) fn run(app: &App, command: &NotifyCommand) -> Result<()> {
    process::runtime()?.block_on(async {
        match command {
            NotifyCommand::Test(args) => test(app, args).await,
            NotifyCommand::List(args) => list(app, args).await,
        }
    })
}

async fn test(app: &App, args: &NotifyTest) -> Result<()> {
    let config = config::load(&args.of.file)?;
    let now = app.host.clock.now();
    let people = config.directory(now)?;
    let known = |name: &&String| people.as_ref().is_some_and(|p| p.named(name).is_some());
    if let Some(name) = args.people.iter().find(|name| !known(name)) {
        return Err(misuse(format!("there is nobody called '{name}' in the directory")));
    }
    // Whatever is wrong with the others.
    let only = config.notify.iter().filter(|(name, _)| **name == args.channel);
    let only = only.map(|(name, channel)| (name.clone(), channel.clone())).collect();
    let channels = match config.notify.contains_key(&args.channel) {
        true => Channels::new(&only, &config.issuer, &app.host)?,
        // It says which there are.
        false => Channels::new(&config.notify, &config.issuer, &app.host)?,
    };
    let key = format!("test/{}", Uuid::new_v4());
    let title = "A test: tmpcred can reach you here";
    let message = Message::new(&key, config::TEST, Urgency::Info, title, now)
        .fact("Broker", config.issuer.as_str())
        .fact("Channel", &args.channel)
        .fact("Sent by", &process::user_name(&app.host.env))
        .people(args.people.iter().cloned())
        .channels();
    let sent = {
        let _waiting = app.host.interact.waiting("sending a test message");
        send_now(&channels, &args.channel, &message, people.as_deref(), now).await?
    };
    if sent.is_empty() {
        let why = format!("the channel '{}' would tell nobody", args.channel);
        return Err(Error::new(ErrorKind::Usage, why).hint("name somebody with --person"));
    }
    if args.json {
        let deliveries: Vec<_> = sent.iter().map(|(to, outcome)| delivery(to, outcome)).collect();
        app.ui.json(&json!({ "channel": args.channel, "deliveries": deliveries }))?;
    }
    let mut failed = None;
    for (to, outcome) in sent {
        let whom = if to.is_empty() { String::new() } else { format!(" for {to}") };
        match outcome {
            Ok(()) if !args.json => {
                app.ui.line(format!("The channel '{}' took it{whom}.", args.channel))?;
            }
            Ok(()) => {}
            Err(error) => {
                failed = Some(error.context(format!("the channel '{}'{whom}", args.channel)));
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

fn delivery(to: &str, outcome: &Result<()>) -> Value {
    json!({
        "to": (!to.is_empty()).then_some(to),
        "delivered": outcome.is_ok(),
        "error": outcome.as_ref().err().map(ToString::to_string),
    })
}

async fn list(app: &App, args: &NotifyList) -> Result<()> {
    let config = config::load(&args.of.file)?;
    let store = store::open_to_read(&config.store, &app.host.env).await?;
    let unseen = store.unspread(args.limit).await?;
    let found = store.undelivered(args.limit).await?;
    store.close().await;
    let is_more = [unseen.len(), found.len()].iter().any(|one| *one >= args.limit as usize);
    let unseen = unseen.into_iter().map(|(key, message)| Line::unseen(key, message));
    let lines: Vec<_> = unseen.chain(found.into_iter().map(Line::of)).collect();
    if args.json {
        return app.ui.json(&lines.iter().map(Line::json).collect::<Vec<_>>());
    }
    if lines.is_empty() {
        return app.ui.line("Everybody was told everything.");
    }
    if is_more {
        let why = "These are the oldest ones; there may be more (--limit).";
        app.host.interact.note(why);
    }
    let header = ["CHANNEL", "TO", "KIND", "TITLE", "SINCE", "TRIES", "NEXT", "WHY"];
    app.ui.table(header, lines.into_iter().map(Line::row))
}

/// A delivery that has not come about.
struct Line {
    key: String,
    message: Option<Message>,
    channel: String,
    to: String,
    attempts: u32,
    next: Option<String>,
    why: Option<String>,
}

impl Line {
    fn unseen(key: String, message: Option<Message>) -> Self {
        let (channel, to, why) = (String::new(), String::new(), Some(UNSEEN.to_string()));
        Self { key, message, channel, to, attempts: 0, next: Some("soon".into()), why }
    }

    fn of(Undelivered { delivery, due_at, why }: Undelivered) -> Self {
        // What was never put off is due since ever.
        let next = due_at.map(|at| at.max(delivery.at)).map(show::moment);
        let (channel, to) = (delivery.channel, delivery.addressee);
        let (key, message, attempts) = (delivery.key, delivery.message, delivery.attempts);
        Self { key, message, channel, to, attempts, next, why }
    }

    fn json(&self) -> Value {
        let message = self.message.as_ref();
        json!({
            "key": self.key,
            "kind": message.map(Message::kind),
            "urgency": message.map(Message::urgency),
            "title": message.map(Message::title),
            "at": message.map(|message| show::moment(message.at())),
            "channel": (!self.channel.is_empty()).then_some(&self.channel),
            "to": (!self.to.is_empty()).then_some(&self.to),
            "attempts": self.attempts,
            "given_up": self.next.is_none(),
            "next": self.next,
            "why": self.why,
        })
    }

    fn row(self) -> [String; 8] {
        let message = self.message.as_ref();
        let text = |of: fn(&Message) -> &str| message.map_or("?", of).to_string();
        [
            self.channel.clone(),
            self.to.clone(),
            text(Message::kind),
            text(Message::title),
            message.map_or_else(|| "?".into(), |message| show::moment(message.at())),
            self.attempts.to_string(),
            self.next.clone().unwrap_or_else(|| "given up".into()),
            self.why.clone().unwrap_or_default(),
        ]
    }
}
