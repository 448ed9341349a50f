//! Conditions: CEL expressions that a signal meets or does not.

mod check;

use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, ExecutionError, Program, Value};

use crate::problem::Source;

use super::samples;
use super::select::Selection;
use super::table::Text;
use super::variables::Variables;

/// Longer conditions are refused.
const LONGEST: usize = 4096;

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A CEL expression that a signal meets or does not.
pub(super) struct Condition {
    text: String,
    program: Program,
    /// The variables that it asks for.
    names: Vec<String>,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}

impl Condition {
    /// Compiles `text` for signals that `on` takes; notes what is wrong with it.
    pub(super) fn compile(source: &mut Source<'_>, text: &Text, on: Selection) -> Option<Self> {
        let place = Place::of(source, text);
        if text.text.len() > LONGEST {
            source.wrong(text.span.start, format!("a condition has at most {LONGEST} bytes"), None);
            return None;
        }
        let program = match ENV.compile(&text.text) {
            Ok(program) => program,
            Err(errors) => {
                for error in errors.errors {
                    let at = place.of_line(&text.text, error.pos.0, error.pos.1);
                    source.wrong(at, format!("the condition is no CEL: {}", error.msg), None);
                }
                return None;
            }
        };
        let findings = check::findings(&program);
        let sound = findings.is_empty();
        for finding in findings {
            source.wrong(place.of_offset(finding.offset), finding.what, Some(finding.hint));
        }
        let names = check::variables(&program);
        let condition = Self { text: text.text.clone(), program, names };
        if sound {
            condition.try_out(source, text, on);
        }
        Some(condition)
    }

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the signal meets it.
    ///
    /// # Errors
    /// Where it compares what cannot be compared. What a signal does not have is no error: it does not meet
    /// the condition.
    pub(super) fn holds(&self, variables: &Variables<'_>) -> Result<bool, String> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        variables.bind(&self.names, &mut context);
        match self.program.execute(&context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("it gives {}, not true or false", other.type_of())),
            Err(ExecutionError::NoSuchKey(_)) => Ok(false),
            Err(ExecutionError::NoSuchOverload(error))
                if error.argument_types().iter().any(|name| name.starts_with("null")) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Looks what it gives for a signal of each kind that the rule takes.
    fn try_out(&self, source: &mut Source<'_>, text: &Text, on: Selection) {
        let failure =
            samples::of(on).iter().find_map(|sample| self.holds(&Variables::new(sample)).err());
        if let Some(failure) = failure {
            let hint = "names and their types are in docs/rules.md".to_owned();
            let what = format!("the condition cannot work: {failure}");
            source.wrong(text.span.start, what, Some(hint));
        }
    }
}

/// Where in the file the characters of a condition are.
struct Place {
    /// Where its first character is.
    begin: usize,
    /// The file has it letter by letter, without escapes.
    verbatim: bool,
}

impl Place {
    fn of(source: &Source<'_>, text: &Text) -> Self {
        let written = source.written(text.span.clone());
        let quotes = ["\"\"\"", "'''", "\"", "'"].iter().find(|q| written.starts_with(**q));
        let quote = quotes.map_or("", |quote| *quote);
        let mut begin = quote.len();
        // A newline right behind three quotes is not of the text.
        if quote.len() == 3 {
            let inside = &written[begin..];
            let newline = ["\r\n", "\n"].iter().find(|newline| inside.starts_with(**newline));
            begin += newline.map_or(0, |newline| newline.len());
        }
        let verbatim = written.get(begin..).is_some_and(|rest| rest.starts_with(&text.text));
        let begin = text.span.start + if verbatim { begin } else { 0 };
        Self { begin, verbatim }
    }

    fn of_offset(&self, offset: usize) -> usize {
        self.begin + if self.verbatim { offset } else { 0 }
    }

    /// The parser counts lines from 1 and columns in characters from 1.
    fn of_line(&self, text: &str, line: isize, column: isize) -> usize {
        let line = usize::try_from(line - 1).unwrap_or(0);
        let column = usize::try_from(column - 1).unwrap_or(0);
        let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
        let rest = text.get(before..).unwrap_or_default();
        let within = rest.char_indices().nth(column).map_or(rest.trim_end().len(), |(at, _)| at);
        self.of_offset(before + within)
    }
}
