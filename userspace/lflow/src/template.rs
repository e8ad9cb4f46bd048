//! Expansion of `^name`, before anything is parsed.

use crate::context::Templates;
use std::borrow::Cow;

/// Replaces every `^name` that is defined by its text. What is not defined stays, and the parser will refuse it as
/// "Unexpanded template.". A `^` inside a quoted string or a comment is no template.
pub(crate) fn expand<'a>(text: &'a str, templates: &dyn Templates) -> Cow<'a, str> {
    if !text.as_bytes().contains(&b'^') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    let mut lexer = crate::lexer::Lexer::new(text);
    loop {
        match lexer.token {
            crate::lexer::Token::End => break,
            crate::lexer::Token::Template(name) => {
                if let Some(expansion) = templates.template(name) {
                    out.push_str(&text[copied..lexer.span.start as usize]);
                    out.push_str(expansion);
                    copied = lexer.span.end as usize;
                }
            }
            _ => {}
        }
        lexer.advance();
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}
