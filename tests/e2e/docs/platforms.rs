//! What the pages print for the files of CI platforms is what those take: it is judged by
//! the schemas that they publish.

use super::*;
use crate::support::aws::python_program;
use crate::support::schema::{Schema, judge};

/// What stands around the blocks of a kind in a file of its own, the least that they are to
/// be, and what the schema must not take.
const PLATFORMS: [(&str, &str, usize, &str); 6] = [
    ("github-workflows", "on: push\n", 2, "on: push\njobs: 1\n"),
    (
        "github-workflows steps",
        "on: push\njobs:\n  deploy:\n    runs-on: ubuntu-latest\n    steps:\n",
        1,
        "on: push\njobs:\n  deploy:\n    steps: []\n",
    ),
    ("gitlab-ci", "", 3, "deploy:\n  script: 1\n"),
    ("buildkite", "", 1, "steps: 1\n"),
    ("circle-ci", "version: 2.1\n", 1, "version: 2.1\njobs: 1\n"),
    ("azure-pipelines", "", 1, "steps: 1\n"),
];

#[test]
fn what_is_for_a_platform_is_what_it_takes() {
    let home = Home::new();
    for (kind, before, at_least, wrong) in PLATFORMS {
        let schema = Schema::Published(kind.split(' ').next().unwrap());
        let refused = home.write("wrong.yaml", wrong);
        judge(&home, schema, &[refused]).ended_with(1);
        let blocks = of_kind(&format!("yaml {kind}"), at_least);
        let files: Vec<_> = blocks
            .iter()
            .enumerate()
            .map(|(at, block)| {
                let name = format!("{}-{at}.yaml", block.page.replace('/', "-"));
                home.write(name, format!("{before}{}", block.text))
            })
            .collect();
        judge(&home, schema, &files).ok();
    }
}

#[test]
fn what_is_yaml_is_yaml() {
    let home = Home::new();
    let kinds = ["yaml", "yaml envoy", "yaml traefik"];
    let blocks = blocks().into_iter().filter(|block| kinds.contains(&&*block.kind));
    let files: Vec<_> = blocks
        .enumerate()
        .map(|(at, block)| home.write(format!("{at}.yaml"), block.text))
        .collect();
    assert!(files.len() >= 3, "only {} blocks", files.len());
    let script = "import sys
from ruamel.yaml import YAML
for name in sys.argv[1:]:
    assert isinstance(YAML(typ='safe').load(open(name)), dict), open(name).read()";
    home.command(python_program("python3")).args(["-c", script]).args(files).run().ok();
}
