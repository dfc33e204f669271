//! An option that says yes or no, and whose value may be that of a variable.

use std::ffi::OsStr;

use clap::builder::{BoolishValueParser, PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, Command, Error};

/// Understands yes and no as clap does. Where it does not, it names the variable, if that is where
/// the value is from: nobody typed the option.
#[derive(Clone)]
pub(crate) struct Flag(BoolishValueParser);

impl Flag {
    pub(crate) fn new() -> Self {
        Self(BoolishValueParser::new())
    }
}

impl TypedValueParser for Flag {
    type Value = bool;

    fn parse_ref(&self, cmd: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<bool, Error> {
        self.0.parse_ref(cmd, arg, value)
    }

    fn parse_ref_(
        &self,
        cmd: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
        source: ValueSource,
    ) -> Result<bool, Error> {
        let parsed = self.parse_ref(cmd, arg, value);
        match arg.and_then(Arg::get_env).filter(|_| source == ValueSource::EnvVariable) {
            None => parsed,
            Some(variable) => parsed.map_err(|_| {
                let (name, value) = (variable.display(), value.display());
                let why =
                    format!("invalid value '{value}' of the variable {name}: say true or false");
                cmd.clone().error(ErrorKind::InvalidValue, why)
            }),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        self.0.possible_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_named_where_the_value_is_from_there() {
        let arg = Arg::new("no-input").long("no-input").env("TMPCRED_NO_INPUT");
        let mut command = Command::new("tmpcred").arg(arg);
        command.build();
        let arg = command.get_arguments().find(|arg| arg.get_id() == "no-input");
        let said = |value: &str, source| {
            let parsed = Flag::new().parse_ref_(&command, arg, value.as_ref(), source);
            parsed.map_err(|error| error.to_string())
        };
        for source in [ValueSource::EnvVariable, ValueSource::CommandLine] {
            assert_eq!([said("0", source), said("yes", source)], [Ok(false), Ok(true)]);
        }
        let of_variable = said("maybe", ValueSource::EnvVariable).unwrap_err();
        let says = "invalid value 'maybe' of the variable TMPCRED_NO_INPUT: say true or false";
        assert!(of_variable.contains(says) && !of_variable.contains("--no-input"), "{of_variable}");
        let typed = said("maybe", ValueSource::CommandLine).unwrap_err();
        assert!(typed.contains("--no-input") && !typed.contains("TMPCRED_NO_INPUT"), "{typed}");
    }
}
