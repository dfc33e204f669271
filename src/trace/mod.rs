//! Where a piece of work stands in a trace (W3C Trace Context), and the spans that tell what
//! it was made of and how long each part took.
//!
//! What is under way has its place with it, from poll to poll, and what makes its spans is
//! in that place too: nothing here is global, so two brokers in one process have tracers of
//! their own. Where nobody traces, a [`step`] is nothing, and costs a look.
//!
//! Only what is written here goes into spans: no library's own, and no text of a request.
//! What [a note](Step::note) may say is what the log may say.

mod queue;
pub mod w3c;

use std::borrow::Cow;

use opentelemetry::trace::{
    FutureExt as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceFlags,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, Sampler, SdkTracer, SdkTracerProvider,
};

pub use opentelemetry::trace::TraceId;
pub use queue::{Counts, Ended, Spans};

/// Makes the spans of one broker, or of one run. The default makes none.
#[derive(Clone, Default)]
pub struct Tracer(Option<SdkTracer>);

/// Which traces are kept of those that begin here. What came with a trace goes by what that
/// says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// This part of them, from 0 to 1.
    Ratio(f64),
    /// This part of them, whatever a trace that came along says of itself.
    RatioOfAll(f64),
}

/// Lets what is under way be told of to others although it makes no spans: it came from
/// somebody who traces.
#[derive(Clone, Copy, Debug)]
struct PassedOn;

impl Tracer {
    /// Makes spans of which these are kept. They wait in a queue until somebody takes them
    /// out; where it is full, they are counted and gone.
    pub fn new(sampling: Sampling) -> (Self, Spans) {
        let (queue, spans) = queue::queue();
        let sampler = match sampling {
            Sampling::Ratio(part) => {
                Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(part)))
            }
            Sampling::RatioOfAll(part) => Sampler::TraceIdRatioBased(part),
        };
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampler)
            .with_resource(opentelemetry_sdk::Resource::builder_empty().build())
            .with_span_processor(queue)
            .build();
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        (Self(Some(provider.tracer_with_scope(scope))), spans)
    }

    /// Begins what answers a request. Where nobody traces, it still has a place: the trace
    /// that it came with, or one of its own, which are told to nobody.
    pub fn answer(&self, name: impl FnOnce() -> String, came_with: Option<SpanContext>) -> Step {
        match &self.0 {
            Some(tracer) => begin(tracer, SpanKind::Server, name().into(), came_with),
            None => {
                Step::at(Context::new().with_remote_span_context(came_with.unwrap_or_else(fresh)))
            }
        }
    }

    /// Begins something that nobody asked for at this moment.
    pub fn begin(&self, name: &'static str) -> Step {
        match &self.0 {
            Some(tracer) => begin(tracer, SpanKind::Internal, name.into(), None),
            None => Step(None),
        }
    }

    /// Begins a run of the program. One that makes no spans passes the trace on with which
    /// it came, and tells nobody of any where there is none.
    pub fn run(&self, name: String, came_with: Option<SpanContext>) -> Step {
        match (&self.0, came_with) {
            (Some(tracer), came_with) => begin(tracer, SpanKind::Internal, name.into(), came_with),
            (None, Some(came_with)) => {
                Step::at(Context::new().with_remote_span_context(came_with).with_value(PassedOn))
            }
            (None, None) => Step(None),
        }
    }
}

fn begin(
    tracer: &SdkTracer,
    kind: SpanKind,
    name: Cow<'static, str>,
    came_with: Option<SpanContext>,
) -> Step {
    let above = match came_with {
        Some(came_with) => Context::new().with_remote_span_context(came_with),
        None => Context::new(),
    };
    let span = tracer.build_with_context(SpanBuilder::from_name(name).with_kind(kind), &above);
    Step::at(Context::new().with_span(span).with_value(tracer.clone()))
}

/// A trace that begins here, and is not kept.
fn fresh() -> SpanContext {
    let ids = RandomIdGenerator::default();
    let (trace, span) = (ids.new_trace_id(), ids.new_span_id());
    SpanContext::new(trace, span, TraceFlags::default(), true, TraceState::default())
}

/// Begins a part of what is under way.
pub fn step(name: &'static str) -> Step {
    part(name, SpanKind::Internal)
}

/// Begins a part of what is under way that asks another server.
pub(crate) fn asking(name: String) -> Step {
    part(name, SpanKind::Client)
}

fn part(name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Step {
    Context::map_current(|above| {
        let Some(tracer) = above.get::<SdkTracer>() else { return Step(None) };
        if !above.span().is_recording() {
            return Step(None);
        }
        let builder = SpanBuilder::from_name(name).with_kind(kind);
        Step::at(above.with_span(tracer.build_with_context(builder, above)))
    })
}

/// Notes something about what is under way.
pub fn note(name: &'static str, value: impl Into<Value>) {
    Context::map_current(|here| {
        let span = here.span();
        if span.is_recording() {
            span.set_attribute(KeyValue::new(name, value));
        }
    });
}

/// The trace that what is under way belongs to.
pub fn id() -> Option<TraceId> {
    here().map(|here| here.trace_id())
}

/// Whether what is under way is told of to the servers that it asks.
fn is_told() -> bool {
    Context::map_current(|here| {
        here.get::<SdkTracer>().is_some() || here.get::<PassedOn>().is_some()
    })
}

fn here() -> Option<SpanContext> {
    Context::map_current(|here| {
        let context = here.span().span_context().clone();
        context.is_valid().then_some(context)
    })
}

/// Where something is under way, for what goes on elsewhere: in another task or thread.
#[derive(Clone, Default)]
pub struct Place(Context);

impl Place {
    /// The place of what is under way here.
    pub fn here() -> Self {
        Self(Context::current())
    }

    /// Does this as a part of it.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _here = self.0.clone().attach();
        work()
    }

    /// The same for what takes a while.
    pub async fn around<T>(self, work: impl Future<Output = T>) -> T {
        work.with_context(self.0).await
    }
}

/// A part of what is under way. It ends when this is dropped.
#[must_use = "it ends when it is dropped"]
pub struct Step(Option<Context>);

impl Step {
    fn at(context: Context) -> Self {
        Self(Some(context))
    }

    /// Whether what is noted about it is kept.
    pub fn is_kept(&self) -> bool {
        self.0.as_ref().is_some_and(|context| context.span().is_recording())
    }

    /// Notes something about it.
    pub fn note(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(name, value));
        }
    }

    /// Notes that it failed, and for what kind of reason; one of a few names, and no text
    /// that tells of the request.
    pub fn failed(&self, kind: impl Into<Cow<'static, str>>) {
        if let Some(context) = &self.0 {
            let kind: Cow<'static, str> = kind.into();
            context.span().set_attribute(KeyValue::new("error.type", Value::from(kind.clone())));
            context.span().set_status(Status::Error { description: kind });
        }
    }

    /// The trace that it belongs to.
    pub fn id(&self) -> Option<TraceId> {
        self.within(id)
    }

    /// Does this as a part of it.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _here = self.0.clone().map(Context::attach);
        work()
    }

    /// The same for what takes a while.
    pub async fn around<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.0 {
            Some(context) => work.with_context(context.clone()).await,
            None => work.await,
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        // Its place may be known elsewhere still.
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}
