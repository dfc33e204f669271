//! The terminal. Nothing else writes to it: what a machine reads goes to
//! stdout, everything else to stderr.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anstyle::{AnsiColor, Color, Style};
use indicatif::{ProgressBar, ProgressStyle};
use qrcode::QrCode;
use qrcode::render::unicode;
use url::Url;

use crate::deliver::{Printed, print};
use crate::error::{Error, ErrorKind, Result, printable_json};
use crate::host::env::Env;
use crate::host::hidden;
use crate::host::interact::{DevicePrompt, Interact, Waiting};
use crate::host::process::stdout_was_closed;
use crate::host::surroundings::is_ci;
use crate::secret::Secret;

use super::args::{ColorWhen, Global};
use super::show::{self, printable};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
const STRONG: Style = Style::new().bold();
/// Glyphs are light and their background is dark, whatever the terminal's own
/// colours are: a reader of QR codes needs it so.
const PICTURE: Style =
    AnsiColor::BrightWhite.on_default().bg_color(Some(Color::Ansi(AnsiColor::Black)));

/// The terminal, as this run may use it.
#[derive(Clone, Debug)]
pub(crate) struct Ui {
    no_input: bool,
    no_browser: bool,
    quiet: bool,
    mute: bool,
    /// Whoever would be asked has written the answers to standard input.
    answered_by_stdin: bool,
    stderr_is_terminal: bool,
    stdout_is_terminal: bool,
    /// Whether whoever was to read the results has closed the pipe.
    reader_is_gone: Arc<AtomicBool>,
}

impl Ui {
    /// What the options and the surroundings allow.
    pub(crate) fn new(global: &Global, env: &Env) -> Self {
        let choice = match global.color {
            ColorWhen::Always => anstream::ColorChoice::Always,
            ColorWhen::Never => anstream::ColorChoice::Never,
            // anstream itself looks at NO_COLOR, CLICOLOR and TERM.
            ColorWhen::Auto => anstream::ColorChoice::Auto,
        };
        choice.write_global();
        let stderr_is_terminal = io::stderr().is_terminal();
        Self {
            no_input: global.no_input.unwrap_or_else(|| {
                is_ci(env) || !(stderr_is_terminal || io::stdin().is_terminal())
            }),
            no_browser: global.no_browser,
            quiet: global.quiet,
            mute: false,
            answered_by_stdin: false,
            stderr_is_terminal,
            stdout_is_terminal: io::stdout().is_terminal(),
            reader_is_gone: Arc::default(),
        }
    }

    /// For a command that a person typed in order to be asked: a missing
    /// terminal is no reason to refuse.
    #[must_use]
    pub(crate) fn asked_for(mut self, global: &Global, env: &Env) -> Self {
        self.no_input = global.no_input.unwrap_or_else(|| is_ci(env));
        self
    }

    /// For a program that asks for a credential: nobody is there to be asked, and
    /// whatever is said besides an error might be taken for a part of the answer.
    #[must_use]
    pub(crate) fn for_a_program(self) -> Self {
        Self { no_input: true, quiet: true, mute: true, ..self }
    }

    /// For answers that a program gives, a line each.
    #[must_use]
    pub(crate) fn answered_by_stdin(self) -> Self {
        Self { no_input: false, answered_by_stdin: true, ..self }
    }

    /// For a login at the embedded provider, which asks nobody.
    #[cfg(feature = "broker")]
    #[must_use]
    pub(crate) fn embedded(mut self) -> Self {
        self.no_input = false;
        self.no_browser = false;
        self.quiet = true;
        self
    }

    /// This terminal as the port that lower layers talk through.
    pub(crate) fn interact(&self) -> Arc<dyn Interact> {
        Arc::new(self.clone())
    }

    /// Where results go. Colours are taken out where stdout is no terminal.
    pub(crate) fn out(&self) -> impl Write {
        Stdout(anstream::AutoStream::auto(io::stdout()), self.reader_is_gone.clone())
    }

    /// Where secrets and scripts go: bytes as they are.
    pub(crate) fn raw_out(&self) -> impl Write {
        Stdout(io::stdout(), self.reader_is_gone.clone())
    }

    /// Hands a secret to whoever reads stdout. One who went away wanted no more.
    pub(crate) fn secret(&self, text: &Secret<String>) -> Result<()> {
        let (Printed::Whole | Printed::ReaderGone) = print(text, &mut self.raw_out())?;
        Ok(())
    }

    /// Tells the CI platform something, in lines that only it reads.
    pub(crate) fn to_platform(&self, lines: &Secret<String>) -> Result<()> {
        let (Printed::Whole | Printed::ReaderGone) = print(lines, &mut io::stderr())?;
        Ok(())
    }

    /// Asks the person whether to do something. No answer is none.
    pub(crate) fn confirm(&self, question: &str) -> Result<bool> {
        self.say(&format!("{STRONG}{question}{STRONG:#} [y/N] "));
        let mut answer = String::new();
        io::stdin().lock().take(64).read_line(&mut answer).map_err(|cause| {
            Error::new(ErrorKind::Io, "the answer cannot be read").because(cause)
        })?;
        Ok(["y", "yes"].iter().any(|yes| answer.trim().eq_ignore_ascii_case(yes)))
    }

    /// Shows a line of what somebody is asked about, which is seen however quiet it is to be.
    pub(crate) fn aside(&self, line: &str) {
        self.say(&format!("{line}\n"));
    }

    /// Whether a person looks at the results.
    pub(crate) fn stdout_is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    /// Whether standard error is one.
    pub(crate) fn stderr_is_terminal(&self) -> bool {
        self.stderr_is_terminal
    }

    /// Whether what is written to standard error has colours.
    pub(crate) fn stderr_has_colours(&self) -> bool {
        anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
    }

    /// Prints a report for a machine.
    pub(crate) fn json(&self, value: &impl serde::Serialize) -> Result<()> {
        let report = serde_json::to_string_pretty(value).map_err(|cause| {
            Error::new(ErrorKind::Other, "the report cannot be written").because(cause)
        })?;
        written(writeln!(self.raw_out(), "{}", printable_json(&report)))
    }

    /// Prints a line of a report.
    pub(crate) fn line(&self, line: impl AsRef<str>) -> Result<()> {
        written(writeln!(self.out(), "{}", line.as_ref()))
    }

    /// Shows an error: what failed, why, and what to do next. Nothing of it where all there is
    /// to say is that nobody reads the results any more: they know, and other programs end
    /// without a word then.
    pub(crate) fn error(&self, error: &Error) {
        if error.kind() == ErrorKind::Io && self.reader_is_gone.load(Ordering::Relaxed) {
            return;
        }
        let mut text = self.paragraph(&format!("{ERROR}error{ERROR:#}: "), error.message());
        for cause in error.causes() {
            if cause.contains('\n') {
                // It shows a place in a file.
                for line in cause.lines() {
                    let _ = writeln!(text, "  {}", printable(line));
                }
            } else {
                text += &self.paragraph("  because: ", cause);
            }
        }
        for hint in error.hints() {
            text += &self.paragraph(&format!("  {HINT}hint{HINT:#}: "), hint);
        }
        self.say(&text);
    }

    /// Text behind its lead, in lines that the terminal need not break. What goes
    /// elsewhere stays one line, and so does what has no spaces, such as an address.
    fn paragraph(&self, lead: &str, text: &str) -> String {
        let width = terminal_size::terminal_size_of(io::stderr()).map(|(width, _)| width.0);
        wrapped(width, lead, text)
    }

    /// Prints a table, as wide as the terminal allows.
    pub(crate) fn table<const N: usize>(
        &self,
        headings: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) -> Result<()> {
        let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0);
        self.line(show::columns(width, headings, rows))
    }

    fn say(&self, text: &str) {
        // Where stderr is closed, there is nobody to tell.
        let _ = anstream::AutoStream::auto(io::stderr()).write_all(text.as_bytes());
    }
}

/// Standard output, which is closed for those who were started so.
struct Stdout<W>(W, Arc<AtomicBool>);

impl<W: Write> Write for Stdout<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if stdout_was_closed() {
            return Err(io::Error::other("standard output is closed"));
        }
        let written = self.0.write(bytes);
        self.noticing(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.0.flush();
        self.noticing(flushed)
    }
}

impl<W> Stdout<W> {
    fn noticing<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        if let Err(cause) = &outcome
            && cause.kind() == io::ErrorKind::BrokenPipe
        {
            self.1.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

/// Turns a failed write into an error. A reader that went away is no failure
/// of ours, but ends the run.
pub(crate) fn written(result: io::Result<()>) -> Result<()> {
    result.map_err(|cause| Error::new(ErrorKind::Io, "the result cannot be written").because(cause))
}

fn wrapped(width: Option<u16>, lead: &str, text: &str) -> String {
    // In it may stand the words of whoever was asked.
    let text = text.split('\n').map(printable).collect::<Vec<_>>().join("\n");
    let Some(width) = width else { return format!("{lead}{text}\n") };
    let options = textwrap::Options::new(width.into())
        .initial_indent(lead)
        .subsequent_indent(if lead.is_empty() { "" } else { "    " })
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .break_words(false);
    textwrap::fill(&text, options) + "\n"
}

/// A QR code, two modules in each character. What is dark in it is background;
/// the renderer adds the quiet zone.
fn qr_code(url: &Url) -> Option<String> {
    let code = QrCode::new(url.as_str()).ok()?;
    let render = &mut code.render::<unicode::Dense1x2>();
    Some(render.dark_color(unicode::Dense1x2::Light).light_color(unicode::Dense1x2::Dark).build())
}

impl Interact for Ui {
    fn may_ask(&self) -> bool {
        !self.no_input
    }

    fn may_browse(&self) -> bool {
        !self.no_input && !self.no_browser
    }

    fn note(&self, line: &str) {
        if !self.quiet {
            self.say(&self.paragraph("", line));
        }
    }

    fn warn(&self, line: &str) {
        if !self.mute {
            self.say(&self.paragraph(&format!("{WARNING}warning{WARNING:#}: "), line));
        }
    }

    fn login_page(&self, url: &Url, opened: bool) {
        if opened {
            self.note("Your browser has been opened to log in. If it does not show, visit:");
        } else {
            self.say("To log in, visit:\n");
        }
        if !opened || !self.quiet {
            self.say(&format!("\n  {url}\n\n"));
        }
    }

    fn device_code(&self, prompt: &DevicePrompt) {
        let mut text = String::new();
        let complete = prompt.verification_uri_complete.as_ref();
        if self.stderr_is_terminal
            && let Some(picture) = qr_code(complete.unwrap_or(&prompt.verification_uri))
        {
            for line in picture.lines() {
                let _ = writeln!(text, "  {PICTURE}{line}{PICTURE:#}");
            }
        }
        let _ = writeln!(
            text,
            "To log in, visit {STRONG}{}{STRONG:#}\nand enter the code    {STRONG}{}{STRONG:#}\nwithin {}",
            prompt.verification_uri,
            printable(&prompt.user_code),
            show::duration(prompt.good_for),
        );
        self.say(&text);
    }

    fn ask(&self, question: &str) -> Result<Secret<String>> {
        let failed = |cause: io::Error| {
            let error = match cause.kind() {
                io::ErrorKind::Interrupted => {
                    Error::new(ErrorKind::LoginRequired, "nothing was answered")
                }
                _ => Error::new(ErrorKind::LoginRequired, "nobody can be asked here"),
            };
            error.because_of(question).because(cause)
        };
        let mut answer = Secret::new(String::new());
        if self.answered_by_stdin {
            io::stdin().lock().read_line(answer.expose_mut()).map_err(failed)?;
        } else if self.no_input {
            return Err(Error::new(ErrorKind::LoginRequired, "nobody may be asked here")
                .because_of(question));
        } else {
            let ask = || self.say(&format!("{STRONG}{question}{STRONG:#} (it does not show): "));
            // From the terminal itself: standard input may be the command's.
            answer = hidden::read_line(&ask, &|| self.say("\n")).map_err(failed)?;
        }
        let line = answer.expose().trim();
        if line.is_empty() {
            return Err(
                Error::new(ErrorKind::LoginRequired, "nothing was answered").because_of(question)
            );
        }
        Ok(Secret::new(line.to_string()))
    }

    fn waiting(&self, what: &str) -> Box<dyn Waiting> {
        if !self.stderr_is_terminal || self.quiet {
            return Box::new(Spinner(None));
        }
        let bar = ProgressBar::new_spinner().with_message(printable(what));
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Box::new(Spinner(Some(bar)))
    }
}

struct Spinner(Option<ProgressBar>);

impl Waiting for Spinner {}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_never_within() {
        let lead = format!("  {HINT}hint{HINT:#}: ");
        let address = "https://login.example.com/a-long-address/that-is-not-broken";
        let text = format!("run `tmpcred config trust` or visit {address} now");
        let shown = wrapped(Some(30), &lead, &text);
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[0].starts_with(&lead) && lines[0].ends_with("run `tmpcred config"));
        assert_eq!(lines[1..], ["    trust` or visit", &format!("    {address}"), "    now"]);
        assert_eq!(wrapped(None, &lead, &text), format!("{lead}{text}\n"));
        assert_eq!(wrapped(Some(80), "", "a\nb"), "a\nb\n");
        // What somebody else wrote steers nothing, and the lead is ours.
        for width in [None, Some(80)] {
            let shown = wrapped(width, &lead, "mended\u{1b}[2J\r\u{202e}now");
            assert_eq!(shown, format!("{lead}mended\u{fffd}[2J\u{fffd}\u{fffd}now\n"));
        }
    }

    #[test]
    fn a_reader_of_qr_codes_finds_the_address() {
        let url = Url::parse("https://login.example.com/device?user_code=WDJB-MJHT").unwrap();
        let picture = qr_code(&url).unwrap();
        let rows: Vec<Vec<char>> = picture.lines().map(|line| line.chars().collect()).collect();
        // As a camera sees it: some pixels for each module.
        const SCALE: usize = 8;
        let light = |x: usize, y: usize| match rows[y / 2][x] {
            '\u{2588}' => true,
            '\u{2580}' => y.is_multiple_of(2),
            '\u{2584}' => !y.is_multiple_of(2),
            _ => false,
        };
        let (width, height) = (rows[0].len() * SCALE, rows.len() * 2 * SCALE);
        let pixel = |x: usize, y: usize| if light(x / SCALE, y / SCALE) { 255 } else { 0 };
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, pixel);
        let (_, found) = image.detect_grids()[0].decode().unwrap();
        assert_eq!(found, url.as_str());
    }
}
