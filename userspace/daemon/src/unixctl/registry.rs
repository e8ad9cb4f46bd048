//! The commands a daemon answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::server::Builtins;
use super::{Answer, Request};

/// Makes a command of arguments, or refuses them with the text to answer.
type Parse<C> = dyn Fn(&[String]) -> Result<C, String> + Send + Sync;

pub(super) enum Handler<C> {
    /// Answered on the spot by the server.
    Builtin(fn(&Builtins, &[String]) -> Answer),
    /// Turned into a command for the event loop, or refused.
    Daemon(Box<Parse<C>>),
}

pub(super) struct Command<C> {
    usage: &'static str,
    arguments: std::ops::RangeInclusive<usize>,
    pub(super) handler: Handler<C>,
}

/// The commands that a daemon answers, the built-in ones included. `C` is the daemon's own command type.
pub struct Commands<C> {
    commands: BTreeMap<&'static str, Command<C>>,
}

impl<C> std::fmt::Debug for Commands<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.commands.keys()).finish()
    }
}

impl<C> Default for Commands<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> Commands<C> {
    /// The built-in commands of every daemon.
    pub fn new() -> Commands<C> {
        let mut commands = Commands { commands: BTreeMap::new() };
        for (name, usage, arguments, handler) in super::server::BUILTINS {
            commands.insert(name, usage, arguments.clone(), Handler::Builtin(*handler));
        }
        commands
    }

    /// Adds a command of the daemon's own. `usage` describes the arguments for `list-commands`, `arguments` is how many
    /// it takes (`usize::MAX` for any), `parse` makes a command of them or refuses them with the text to answer.
    ///
    /// A name that is registered already is replaced.
    pub fn add(
        &mut self,
        name: &'static str,
        usage: &'static str,
        arguments: std::ops::RangeInclusive<usize>,
        parse: impl Fn(&[String]) -> Result<C, String> + Send + Sync + 'static,
    ) -> &mut Self {
        self.insert(name, usage, arguments, Handler::Daemon(Box::new(parse)));
        self
    }

    /// Adds a command without arguments.
    pub fn add_plain(&mut self, name: &'static str, command: C) -> &mut Self
    where
        C: Clone + Send + Sync + 'static,
    {
        self.add(name, "", 0..=0, move |_| Ok(command.clone()))
    }

    fn insert(
        &mut self,
        name: &'static str,
        usage: &'static str,
        arguments: std::ops::RangeInclusive<usize>,
        handler: Handler<C>,
    ) {
        self.commands.insert(name, Command { usage, arguments, handler });
    }

    /// Finds a command and checks the number of its arguments; the error texts are OVS's.
    pub(super) fn find(&self, name: &str, arguments: usize) -> Result<&Command<C>, String> {
        let command = self.commands.get(name).ok_or_else(|| {
            format!("\"{name}\" is not a valid command (use \"list-commands\" to see a list of valid commands)")
        })?;
        let (least, most) = (*command.arguments.start(), *command.arguments.end());
        if arguments < least {
            return Err(format!("\"{name}\" command requires at least {least} arguments"));
        }
        if arguments > most {
            return Err(format!("\"{name}\" command takes at most {most} arguments"));
        }
        Ok(command)
    }

    /// What `list-commands` prints.
    pub(super) fn list(&self) -> String {
        let mut text = String::from("The available commands are:\n");
        for (name, command) in &self.commands {
            let _ = writeln!(text, "  {name:<23} {}", command.usage);
        }
        text
    }

    /// What `list-commands` answers in JSON: an object from command to usage.
    pub(super) fn list_json(&self) -> serde_json::Value {
        self.commands
            .iter()
            .map(|(name, command)| ((*name).to_owned(), serde_json::Value::from(command.usage)))
            .collect()
    }
}

/// The sending half towards the event loop.
pub(super) type Requests<C> = tokio::sync::mpsc::Sender<Request<C>>;
