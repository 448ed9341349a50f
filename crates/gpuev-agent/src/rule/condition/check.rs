//! Looking for names that mean nothing, before a condition meets its first signal.

use cel::Program;
use cel::common::ast::{EntryExpr, Expr, IdedExpr, operators};

use crate::problem::meant;
use crate::rule::variables::NAMES;

/// Functions of the language that a condition can call, beside operators.
const FUNCTIONS: [&str; 13] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "bytes",
    "dyn",
    "type",
];

/// A name that means nothing.
pub(super) struct Finding {
    /// In bytes from the condition's begin.
    pub(super) offset: usize,
    pub(super) what: String,
    pub(super) hint: String,
}

/// The names in `program` that mean nothing.
pub(super) fn findings(program: &Program) -> Vec<Finding> {
    let mut walk = Walk { program, bound: Vec::new(), findings: Vec::new() };
    walk.visit(program.expression());
    walk.findings
}

/// The variables that `program` asks for.
pub(super) fn variables(program: &Program) -> Vec<String> {
    let known = |name: &&str| NAMES.contains(name);
    program.references().variables().into_iter().filter(known).map(str::to_owned).collect()
}

struct Walk<'a> {
    program: &'a Program,
    /// Names that a macro gave, innermost last.
    bound: Vec<String>,
    findings: Vec<Finding>,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, node: &'a IdedExpr) {
        match &node.expr {
            Expr::Ident(_) | Expr::Select(_) => self.name(node),
            Expr::Call(call) => {
                self.function(node.id, &call.func_name);
                call.target.iter().for_each(|target| self.visit(target));
                call.args.iter().for_each(|argument| self.visit(argument));
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.visit(element)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.entry(&entry.expr)),
            Expr::Struct(made) => made.entries.iter().for_each(|entry| self.entry(&entry.expr)),
            Expr::Comprehension(each) => {
                self.visit(&each.iter_range);
                self.visit(&each.accu_init);
                let outside = self.bound.len();
                self.bound.extend([each.iter_var.clone(), each.accu_var.clone()]);
                self.bound.extend(each.iter_var2.clone());
                for inside in [&each.loop_cond, &each.loop_step, &each.result] {
                    self.visit(inside);
                }
                self.bound.truncate(outside);
            }
            Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn entry(&mut self, entry: &'a EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => self.visit(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.visit(&entry.key);
                self.visit(&entry.value);
            }
        }
    }

    /// A variable, or a field of one.
    fn name(&mut self, node: &'a IdedExpr) {
        let mut fields = Vec::new();
        let mut at = node;
        while let Expr::Select(select) = &at.expr {
            fields.push((at.id, select.field.as_str()));
            at = &select.operand;
        }
        let Expr::Ident(root) = &at.expr else { return self.visit(at) };
        if root.starts_with('@') || self.bound.contains(root) {
            return;
        }
        let mut known = root.clone();
        if !NAMES.contains(&root.as_str()) {
            let variables: Vec<&str> = NAMES.iter().copied().filter(|n| !n.contains('.')).collect();
            return self.unknown(
                at.id,
                0,
                format!("there is no variable {root}"),
                root,
                &variables,
            );
        }
        for (id, field) in fields.into_iter().rev() {
            let prefix = format!("{known}.");
            let within: Vec<&str> =
                NAMES.iter().filter_map(|name| name.strip_prefix(prefix.as_str())).collect();
            if !within.contains(&field) {
                let what = format!("{known} has no field {field}");
                // The parser places a field at its dot.
                return self.unknown(id, 1, what, field, &within);
            }
            known = prefix + field;
        }
    }

    fn function(&mut self, id: u64, name: &str) {
        let operator = !name.starts_with(|first: char| first.is_ascii_alphabetic());
        if !operator && !FUNCTIONS.contains(&name) && name != operators::OPT_SELECT {
            self.unknown(id, 0, format!("there is no function {name}"), name, &FUNCTIONS);
        }
    }

    fn unknown(&mut self, id: u64, behind: usize, what: String, name: &str, names: &[&str]) {
        let offset = self.program.source_info().offset_for(id).map_or(0, |(start, _)| start);
        let hint = if names.is_empty() { "it is not a map".to_owned() } else { meant(name, names) };
        let offset = usize::try_from(offset).unwrap_or(0) + behind;
        self.findings.push(Finding { offset, what, hint });
    }
}
