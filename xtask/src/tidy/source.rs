//! Rules of Rust source: every module says what it is, functions and files stay small, nothing unfinished.

use std::fmt;
use std::path::Path;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, File, Item, Safety, Signature};

use super::Found;

/// Lines of a function, its signature included, which none may pass.
const LONGEST_FUNCTION: usize = 100;
/// Lines that nine of ten functions keep to.
const NINE_OF_TEN: usize = 30;
/// Lines of a file without its tests, which none may pass.
const LONGEST_FILE: usize = 1000;
/// Lines of a file from which on it wants to be two.
const LONG_FILE: usize = 600;
/// Crates that may hold `unsafe`; clippy sees that each block says why it is sound.
const UNSAFE_IN: [&str; 3] = ["gpuev-kfd", "gpuev-sim", "gpuev-python"];
/// Macros that mark unfinished code.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// How long the functions outside tests are.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    functions: Vec<usize>,
    longest_file: usize,
}

impl Sizes {
    pub(super) fn check(&mut self, findings: &mut Vec<String>) {
        self.functions.sort_unstable();
        let p90 = self.percentile(90);
        if p90 > NINE_OF_TEN {
            findings.push(format!(
                "one of ten functions is longer than {p90} lines, the aim is {NINE_OF_TEN}"
            ));
        }
    }

    /// Only after [`check`](Self::check), which sorts.
    fn percentile(&self, percent: usize) -> usize {
        let last = self.functions.len().saturating_sub(1);
        self.functions.get(last * percent / 100).copied().unwrap_or(0)
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p90, max) = (self.percentile(50), self.percentile(90), self.percentile(100));
        let count = self.functions.len();
        write!(f, "{count} functions of {median} lines (median), {p90} (p90), {max} (longest); ")?;
        write!(f, "longest file {} lines; tests not counted", self.longest_file)
    }
}

pub(super) fn check(path: &Path, text: &str, found: &mut Found) {
    let place = path.display();
    let file = match syn::parse_file(text) {
        Ok(file) => file,
        Err(error) => return found.findings.push(format!("{place}: {error}")),
    };
    if !has_docs(&file) {
        found.findings.push(format!("{place}: the module has no `//!` that says what it is"));
    }
    if is_crate_root(path) && !may_hold_unsafe(path) && !text.contains("#![forbid(unsafe_code)]") {
        found.findings.push(format!("{place}: the crate lacks `#![forbid(unsafe_code)]`"));
    }
    // A file of tests beside the code says so itself: `#![cfg(test)]`.
    let is_test = path.iter().any(|folder| folder == "tests") || is_for_tests(&file.attrs);
    check_length(path, text, &file, is_test, found);
    let mut visitor = Visitor { path, is_test, found };
    visitor.visit_file(&file);
}

fn has_docs(file: &File) -> bool {
    file.attrs.iter().any(|attribute| attribute.path().is_ident("doc"))
}

fn is_crate_root(path: &Path) -> bool {
    path.ends_with("src/lib.rs") || path.ends_with("src/main.rs")
}

fn may_hold_unsafe(path: &Path) -> bool {
    path.iter().any(|folder| UNSAFE_IN.iter().any(|name| folder == *name))
}

fn check_length(path: &Path, text: &str, file: &File, is_test: bool, found: &mut Found) {
    let tests: usize = file.items.iter().filter(|item| is_test_item(item)).map(lines_of).sum();
    let lines = text.lines().count() - tests;
    let place = path.display();
    if lines > LONGEST_FILE {
        found.findings.push(format!("{place}: {lines} lines; no file may pass {LONGEST_FILE}"));
    } else if lines > LONG_FILE && !is_test {
        found
            .notes
            .push(format!("{place}: {lines} lines; over {LONG_FILE} a file wants to be two"));
    }
    if !is_test {
        found.sizes.longest_file = found.sizes.longest_file.max(lines);
    }
}

fn is_test_item(item: &Item) -> bool {
    matches!(item, Item::Mod(module) if is_for_tests(&module.attrs))
}

/// `#[cfg(test)]`, `#[cfg(all(test, …))]`, `#[test]`, `#[tokio::test]`.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let last = attribute.path().segments.last();
        let is_test = last.is_some_and(|segment| segment.ident == "test");
        is_test || (attribute.path().is_ident("cfg") && names_test(attribute))
    })
}

fn names_test(attribute: &Attribute) -> bool {
    let mut names = false;
    // `not(test)` is code outside tests; nested lists other than `all` do not occur.
    let _unparsable = attribute.parse_nested_meta(|meta| {
        names |= meta.path.is_ident("test");
        if meta.path.is_ident("all") {
            return meta.parse_nested_meta(|inner| {
                names |= inner.path.is_ident("test");
                skip_value(&inner)
            });
        }
        skip_value(&meta)
    });
    names
}

fn skip_value(meta: &syn::meta::ParseNestedMeta<'_>) -> syn::Result<()> {
    if meta.input.peek(syn::Token![=]) {
        meta.value()?.parse::<syn::Lit>()?;
    } else if meta.input.peek(syn::token::Paren) {
        let _rest: proc_macro2::Group = meta.input.parse()?;
    }
    Ok(())
}

fn lines_of(spanned: &impl Spanned) -> usize {
    let span = spanned.span();
    span.end().line - span.start().line + 1
}

struct Visitor<'a> {
    path: &'a Path,
    /// Within tests; the whole file may be.
    is_test: bool,
    found: &'a mut Found,
}

impl Visitor<'_> {
    fn finding(&mut self, at: Span, what: &str) {
        let place = format!("{}:{}", self.path.display(), at.start().line);
        self.found.findings.push(format!("{place}: {what}"));
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        let lines = block.span().end().line - signature.span().start().line + 1;
        if lines > LONGEST_FUNCTION {
            let name = &signature.ident;
            let what =
                format!("`{name}` has {lines} lines; no function may pass {LONGEST_FUNCTION}");
            self.finding(signature.span(), &what);
        }
        if !self.is_test {
            self.found.sizes.functions.push(lines);
        }
        if matches!(signature.safety, Safety::Unsafe(_)) {
            self.has_unsafe(signature.span());
        }
    }

    fn has_unsafe(&mut self, at: Span) {
        if !may_hold_unsafe(self.path) {
            self.finding(at, "`unsafe` may stand in the crates for it only");
        }
    }

    fn within(&mut self, attributes: &[Attribute], visit: impl FnOnce(&mut Self)) {
        let before = self.is_test;
        self.is_test |= is_for_tests(attributes);
        visit(self);
        self.is_test = before;
    }
}

impl<'ast> Visit<'ast> for Visitor<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.within(&module.attrs, |this| visit::visit_item_mod(this, module));
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.within(&function.attrs, |this| {
            this.function(&function.sig, &function.block);
            visit::visit_item_fn(this, function);
        });
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.within(&function.attrs, |this| {
            this.function(&function.sig, &function.block);
            visit::visit_impl_item_fn(this, function);
        });
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if item.unsafety.is_some() {
            self.has_unsafe(item.span());
        }
        self.within(&item.attrs, |this| visit::visit_item_impl(this, item));
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.has_unsafe(block.span());
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if !self.is_test && call.method == "unwrap" {
            self.finding(
                call.method.span(),
                "`unwrap` outside tests: say in `expect` why it cannot fail",
            );
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, used: &'ast syn::Macro) {
        let name = used.path.segments.last().map(|segment| segment.ident.to_string());
        if let Some(name) = name.filter(|name| UNFINISHED.contains(&name.as_str())) {
            self.finding(used.span(), &format!("`{name}!` is unfinished"));
        }
        visit::visit_macro(self, used);
    }
}
