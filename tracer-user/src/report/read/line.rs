//! One line of text to one event: prefixes that log collectors put before it, and what can be wrong.
//!
//! Deserialising a [`Line`] as a whole buffers it, because its parts are flattened. Here the head is
//! read for itself and the body by its type, without a copy: some ten times faster.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{error::Category, value::RawValue};
use tracer_core::output::{Agent, Body, K8s, Line, SCHEMA, Subject, Target, Timestamp};

/// How every line of lastpacket begins.
const BEGIN: &str = "{\"schema\":\"lastpacket.dev/";
/// The schema's name, of whatever version.
const FAMILY: &str = "lastpacket.dev/";

/// What a line of text holds.
#[derive(Debug)]
pub(super) enum Found {
    /// An event.
    Event(Line),
    /// An event of a type, a word or a schema that this version does not know; who wrote it and its
    /// `seq`, if that could be read.
    Newer(Option<(Arc<str>, u64)>),
    /// The begin of an event.
    Truncated,
    /// Anything else.
    Garbage,
}

/// Names that come again and again are kept once.
#[derive(Debug, Default)]
pub(super) struct Names {
    words: HashMap<String, Arc<str>>,
    subjects: HashMap<String, Option<Arc<Subject>>>,
    key: String,
}

/// The fields that every line has.
#[derive(Deserialize)]
struct Head<'a> {
    schema: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    time: Timestamp,
    mono_ns: u64,
    node: Cow<'a, str>,
    #[serde(borrow)]
    agent: AgentHead<'a>,
    seq: u64,
    #[serde(borrow)]
    target: Option<&'a RawValue>,
    #[serde(borrow)]
    k8s: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct AgentHead<'a> {
    run_id: Cow<'a, str>,
}

/// All that can be asked of a line that is not understood.
#[derive(Deserialize)]
struct AnyHead {
    schema: String,
    agent: Option<Agent>,
    seq: Option<u64>,
}

/// The events of a line of text: one, unless several writers shared it.
pub(super) fn find(text: &str, names: &mut Names) -> Vec<Found> {
    let Some(text) = text.find(BEGIN).or_else(|| text.find('{')).map(|at| &text[at..]) else {
        return vec![Found::Garbage];
    };
    let whole = event(text, names);
    if matches!(whole, Found::Event(_) | Found::Newer(_)) {
        return vec![whole];
    }
    let begins: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    if begins.len() < 2 {
        return vec![whole];
    }
    begins.into_iter().map(|at| event(first_value(&text[at..]), names)).collect()
}

/// The first JSON value of a text that others follow.
fn first_value(text: &str) -> &str {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    match values.next() {
        Some(Ok(value)) => value.get(),
        _ => text,
    }
}

fn event(text: &str, names: &mut Names) -> Found {
    let line = serde_json::from_str::<Head>(text)
        .and_then(|head| if head.schema == SCHEMA { names.line(&head, text) } else { Ok(None) });
    match line {
        Ok(Some(line)) => Found::Event(line),
        Ok(None) => unknown(text),
        Err(error) => match error.classify() {
            Category::Data => unknown(text),
            Category::Eof if text.starts_with(BEGIN) => Found::Truncated,
            Category::Eof | Category::Syntax | Category::Io => Found::Garbage,
        },
    }
}

/// A line of JSON that does not fit: from the future, or somebody else's.
fn unknown(text: &str) -> Found {
    match serde_json::from_str::<AnyHead>(text) {
        Ok(head) if head.schema.starts_with(FAMILY) => {
            Found::Newer(head.agent.map(|agent| agent.run_id).zip(head.seq))
        }
        Err(error) if error.is_eof() && text.starts_with(BEGIN) => Found::Truncated,
        _ => Found::Garbage,
    }
}

impl Names {
    /// The line, or `None` if its type is not known.
    fn line(&mut self, head: &Head, text: &str) -> serde_json::Result<Option<Line>> {
        let Some(body) = body(head.kind, text)? else { return Ok(None) };
        Ok(Some(Line {
            schema: self.word(SCHEMA),
            time: head.time,
            mono_ns: head.mono_ns,
            node: self.word(&head.node),
            agent: Agent { run_id: self.word(&head.agent.run_id) },
            seq: head.seq,
            subject: self.subject(head.target, head.k8s)?,
            body,
        }))
    }

    fn word(&mut self, word: &str) -> Arc<str> {
        if let Some(known) = self.words.get(word) {
            return Arc::clone(known);
        }
        let new: Arc<str> = word.into();
        self.words.insert(word.to_owned(), Arc::clone(&new));
        new
    }

    fn subject(
        &mut self,
        target: Option<&RawValue>,
        k8s: Option<&RawValue>,
    ) -> serde_json::Result<Option<Arc<Subject>>> {
        let Some(target) = target else { return Ok(None) };
        self.key.clear();
        self.key.extend([target.get(), k8s.map_or("", RawValue::get)]);
        if let Some(known) = self.subjects.get(&self.key) {
            return Ok(known.clone());
        }
        let k8s = k8s.map(|k8s| serde_json::from_str::<Option<K8s>>(k8s.get())).transpose()?.flatten();
        let target = serde_json::from_str::<Option<Target>>(target.get())?;
        let subject = target.map(|target| Arc::new(Subject { target, k8s }));
        self.subjects.insert(self.key.clone(), subject.clone());
        Ok(subject)
    }
}

/// The body by its type; `None` if this version has no such type.
fn body(kind: &str, text: &str) -> serde_json::Result<Option<Body>> {
    fn read<T: DeserializeOwned>(
        text: &str,
        body: impl FnOnce(T) -> Body,
    ) -> serde_json::Result<Option<Body>> {
        serde_json::from_str(text).map(body).map(Some)
    }
    match kind {
        "agent_started" => read(text, Body::AgentStarted),
        "target_started" => read(text, Body::TargetStarted),
        "target_ended" => read(text, Body::TargetEnded),
        "phase" => read(text, Body::Phase),
        "signal" => read(text, Body::Signal),
        "exit" => read(text, Body::Exit),
        "hook_run" => read(text, Body::HookRun),
        "connection_opened" => read(text, Body::ConnectionOpened),
        "connection_closed" => read(text, Body::ConnectionClosed),
        "reset" => read(text, Body::Reset),
        "endpoint" => read(text, Body::Endpoint),
        "lost" => read(text, Body::Lost),
        "verdict" => read(text, |verdict| Body::Verdict(Box::new(verdict))),
        "rehearsal" => read(text, |event| Body::Rehearsal(Box::new(event))),
        _ => Ok(None),
    }
}
