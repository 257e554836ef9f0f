//! A panel that asks before an act: what the act does, its fields, and its buttons.

use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::layout::{self, Place};
use super::parts::csrf;
use super::site::Visitor;
use super::trouble::Trouble;

/// An act that a panel asks for.
pub(super) struct Panel<'a> {
    pub(super) title: Markup,
    /// The label of the button.
    pub(super) button: &'a str,
    pub(super) is_danger: bool,
    /// Where the form is sent.
    pub(super) to: &'a str,
    /// The page that a person goes back to.
    pub(super) back: &'a str,
    /// Hidden fields.
    pub(super) hidden: Vec<(&'a str, String)>,
}

/// The panel, with why the act was refused if it was.
pub(super) fn panel(
    visitor: &Visitor,
    panel: &Panel<'_>,
    trouble: Option<&Trouble>,
    content: &Markup,
) -> Markup {
    let Panel { title, button, is_danger, to, back, hidden } = panel;
    html! {
        section.card.panel data-panel {
            h1 #dialog-title { (title) }
            @if let Some(trouble) = trouble { (layout::failure(trouble)) }
            form method="post" action=(to) data-dialog {
                (csrf(&visitor.csrf))
                @for (name, value) in hidden { input type="hidden" name=(name) value=(value); }
                (content)
                div.buttons {
                    button.primary.danger[*is_danger] type="submit" { (button) }
                    a.button href=(back) data-close { "Cancel" }
                }
            }
        }
    }
}

/// A page with a panel again, because its act was refused.
pub(super) fn refused(visitor: &Visitor, place: &Place, trouble: &Trouble, content: &Markup) -> Response {
    (trouble.status, layout::page(visitor, place, content)).into_response()
}

/// A field with its label, its value and a hint.
pub(super) fn field(name: &str, label: &str, value: &str, hint: &str) -> Markup {
    let described = (!hint.is_empty()).then(|| format!("{name}-hint"));
    html! {
        div.field {
            label for=(name) { (label) }
            input id=(name) type="text" name=(name) value=(value) aria-describedby=[described.as_deref()]
                autocomplete="off" spellcheck="false";
            @if let Some(id) = &described { p.muted.small id=(id) { (hint) } }
        }
    }
}

/// A box to tick, with its words.
pub(super) fn tick(name: &str, value: &str, is_on: bool, words: &Markup) -> Markup {
    html! {
        label.check { input type="checkbox" name=(name) value=(value) checked[is_on]; span { (words) } }
    }
}

/// A choice of one of a few: value, words, and what it means.
pub(super) fn choices(name: &str, legend: &str, chosen: &str, all: &[(&str, &str, &str)]) -> Markup {
    html! {
        fieldset.options {
            legend.label { (legend) }
            @for (value, words, meaning) in all {
                label.option {
                    input type="radio" name=(name) value=(value) required checked[*value == chosen];
                    strong { (words) }
                    span.muted { (meaning) }
                }
            }
        }
    }
}
