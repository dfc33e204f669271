//! `check-jsonschema`: judges files by a schema, and has those that CI platforms publish.

use std::path::{Path, PathBuf};

use super::aws::python_program;
use super::home::Home;
use super::run::{Output, Run};

/// What a file is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Schema<'a> {
    /// A schema that its platform publishes, by the name that the program has for it.
    Published(&'a str),
    /// A file with a schema.
    File(&'a Path),
}

/// Judges these files.
pub(crate) fn judge(home: &Home, schema: Schema<'_>, files: &[PathBuf]) -> Output {
    let run = program(home).args(["--output-format", "json"]);
    let run = match schema {
        Schema::Published(name) => run.args(["--builtin-schema", &format!("vendor.{name}")]),
        Schema::File(path) => run.args(["--schemafile".as_ref(), path.as_os_str()]),
    };
    run.args(files).run()
}

/// Judges a schema by the schema of schemas.
pub(crate) fn judge_schema(home: &Home, schema: &Path) -> Output {
    program(home).args(["--check-metaschema".as_ref(), schema.as_os_str()]).run()
}

fn program(home: &Home) -> Run {
    home.command(python_program("check-jsonschema"))
}
