//! The description itself (OpenAPI 3.1), whose schemas are JSON Schema 2020-12.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::operation::{Answer, Field, FormIs, Header, Kind, Operation, Parameter, Scheme};
use super::{Endpoint, Verb};
use crate::wire::TokenRefusal;

/// The version of the standard.
const OPENAPI: &str = "3.1.0";

/// What an endpoint that takes any method is described with. A description has no word for
/// others.
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

/// What all answers have.
const EVERYWHERE: [Header; 3] = [
    Header::always("X-Request-Id", "The id under which the request is in the log and on record"),
    Header::always("Tmpcred-Protocol", "The version of the protocol that the broker speaks"),
    Header::always("Cache-Control", "Whether the answer may be kept (RFC 9111)"),
];

/// What there is to say of a listener.
pub(in crate::broker::http) struct About {
    /// What it is called.
    pub(in crate::broker::http) title: &'static str,
    /// What it is for.
    pub(in crate::broker::http) about: &'static str,
    /// Where it is: an address, or one that is relative to that of the description.
    pub(in crate::broker::http) server: String,
    /// Where the broker's own metadata is.
    pub(in crate::broker::http) discovery: String,
}

/// The description of endpoints.
pub(in crate::broker::http) fn document<S>(about: &About, endpoints: &[Endpoint<S>]) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .for_serialize();
    let mut schemas = settings.into_generator();
    let refusal = schemas.subschema_for::<TokenRefusal>();
    let mut shared = Shared::default();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut used = Vec::new();
    for endpoint in endpoints {
        let item = paths.entry(endpoint.path.replace("{*", "{")).or_default();
        let operation = &endpoint.operation;
        used.extend(operation.security.iter().flat_map(|together| together.iter().copied()));
        for method in methods(endpoint.verb) {
            let id = match endpoint.verb {
                Verb::Any => format!("{}-{method}", operation.id),
                Verb::Get | Verb::Post => operation.id.to_string(),
            };
            let body = *method == "head";
            let mut written = written(operation, id, !body, &refusal, &mut schemas);
            shared.share(&mut written);
            item.insert(method.to_string(), written);
        }
    }
    let schemes: Map<String, Value> =
        used.iter().map(|scheme| (scheme.name().into(), scheme.written(about))).collect();
    let mut document = json!({
        "openapi": OPENAPI,
        "info": {
            "title": about.title,
            "description": about.about,
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": about.server}],
        "paths": paths,
        "components": {
            "headers": EVERYWHERE.map(|header| (header.name, written_header(header)))
                .into_iter().collect::<BTreeMap<_, _>>(),
            "parameters": shared.parameters,
            "responses": shared.responses,
            "schemas": schemas.take_definitions(true),
            "securitySchemes": schemes,
        },
    });
    tidy(&mut document);
    document
}

/// What several operations have in common, by names under which they refer to it.
#[derive(Default)]
struct Shared {
    parameters: Map<String, Value>,
    responses: Map<String, Value>,
}

impl Shared {
    fn share(&mut self, operation: &mut Value) {
        if let Some(Value::Array(parameters)) = operation.get_mut("parameters") {
            for parameter in parameters {
                let name = parameter["name"].as_str().unwrap_or_default().to_string();
                *parameter = put(&mut self.parameters, "parameters", &name, parameter.take());
            }
        }
        if let Some(Value::Object(responses)) = operation.get_mut("responses") {
            for (status, response) in responses {
                *response = put(&mut self.responses, "responses", status, response.take());
            }
        }
    }
}

/// Puts a thing among others of its kind, unless it is there, and refers to it.
fn put(things: &mut Map<String, Value>, kind: &str, name: &str, thing: Value) -> Value {
    let mut at = name.to_string();
    let mut count = 1;
    while things.get(&at).is_some_and(|other| *other != thing) {
        count += 1;
        at = format!("{name}-{count}");
    }
    let reference = format!("#/components/{kind}/{at}");
    things.insert(at, thing);
    json!({"$ref": reference})
}

/// The schema of what is described elsewhere.
pub(super) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object"})
}

/// The methods by which an endpoint is described.
pub(super) fn methods(verb: Verb) -> &'static [&'static str] {
    match verb {
        Verb::Get => &["get"],
        Verb::Post => &["post"],
        Verb::Any => &METHODS,
    }
}

fn written(
    operation: &Operation,
    id: String,
    bodies: bool,
    refusal: &Schema,
    schemas: &mut SchemaGenerator,
) -> Value {
    let mut written = json!({
        "operationId": id,
        "summary": operation.summary,
        "responses": operation.answers.iter().map(|(status, answer)| {
            (status.to_string(), written_answer(answer, bodies, refusal, schemas))
        }).collect::<Map<_, _>>(),
    });
    if !operation.about.is_empty() {
        written["description"] = operation.about.into();
    }
    if !operation.parameters.is_empty() {
        written["parameters"] = operation.parameters.iter().map(written_parameter).collect();
    }
    if !operation.form.is_empty() {
        written["requestBody"] = written_form(operation.form, operation.form_is);
    }
    if let Some((kinds, schema)) = operation.body {
        let one = schema(schemas);
        let content = kinds.iter().map(|kind| {
            let schema = match *kind {
                "application/json" => json!({"type": "array", "items": one}),
                _ => json!({"type": "string"}),
            };
            (kind.to_string(), json!({"schema": schema}))
        });
        let content: Map<_, _> = content.collect();
        written["requestBody"] = json!({"required": true, "content": content});
    }
    if !operation.security.is_empty() {
        let together = |schemes: &&[Scheme]| -> Value {
            schemes
                .iter()
                .map(|scheme| (scheme.name().into(), json!([])))
                .collect::<Map<_, _>>()
                .into()
        };
        written["security"] = operation.security.iter().map(together).collect();
    }
    written
}

fn written_answer(
    answer: &Answer,
    bodies: bool,
    refusal: &Schema,
    schemas: &mut SchemaGenerator,
) -> Value {
    let mut headers: Map<String, Value> = EVERYWHERE
        .map(|header| {
            (header.name.into(), json!({"$ref": format!("#/components/headers/{}", header.name)}))
        })
        .into_iter()
        .collect();
    headers
        .extend(answer.headers.iter().map(|header| (header.name.into(), written_header(*header))));
    let mut content = Map::new();
    if let Some((kind, schema)) = answer.body {
        content.insert(kind.into(), json!({"schema": schema(schemas)}));
    }
    if !answer.codes.is_empty() {
        let codes = json!({"properties": {"error": {"enum": answer.codes}}});
        let refused = json!({"allOf": [refusal, codes]});
        let entry = content.entry("application/json").or_insert_with(|| json!({}));
        let schema = match entry.get("schema") {
            Some(other) => json!({"anyOf": [other, refused]}),
            None => refused,
        };
        entry["schema"] = schema;
    }
    let mut written = json!({"description": answer.about.join("; "), "headers": headers});
    if bodies && !content.is_empty() {
        written["content"] = content.into();
    }
    written
}

fn written_header(header: Header) -> Value {
    json!({
        "description": header.about,
        "required": header.required,
        "schema": {"type": "string"},
    })
}

fn written_parameter(parameter: &Parameter) -> Value {
    json!({
        "in": parameter.place,
        "name": parameter.name,
        "description": parameter.about,
        "required": parameter.required,
        "schema": written_kind(parameter.kind),
    })
}

fn written_form(form: &[&[Field]], is: FormIs) -> Value {
    let fields = || form.iter().copied().flatten();
    let property = |field: &Field| {
        let mut schema = written_kind(field.kind);
        schema["description"] = field.about.into();
        (field.name.to_string(), schema)
    };
    let required: Vec<_> =
        fields().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({
        "type": "object",
        "properties": fields().map(property).collect::<Map<_, _>>(),
        "required": required,
    });
    if is != FormIs::Open {
        schema["additionalProperties"] = false.into();
    }
    json!({
        "required": is != FormIs::ClosedOrNone,
        "content": {"application/x-www-form-urlencoded": {"schema": schema}},
    })
}

fn written_kind(kind: Kind) -> Value {
    match kind {
        Kind::Anything => json!({"type": "string"}),
        Kind::Text => json!({"type": "string", "minLength": 1}),
        Kind::Secret => json!({"type": "string", "minLength": 1, "format": "password"}),
        Kind::Number => json!({"type": "integer", "minimum": 1}),
        Kind::OneOf(values) => json!({"type": "string", "enum": values}),
    }
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Dpop => "dpop",
            Self::DpopProof => "dpop_proof",
            Self::PrivateKeyJwt => "private_key_jwt",
        }
    }

    fn written(self, about: &About) -> Value {
        match self {
            Self::Bearer => json!({
                "type": "http",
                "scheme": "bearer",
                "description": "A bearer token (RFC 6750)",
            }),
            Self::Dpop => json!({
                "type": "http",
                "scheme": "dpop",
                "description": "A token that is bound to a key (RFC 9449 section 7.1), shown with a proof of that key",
            }),
            Self::DpopProof => json!({
                "type": "apiKey",
                "in": "header",
                "name": "DPoP",
                "description": "The proof of a key, for this request (RFC 9449 section 4)",
            }),
            // There is no type for it: the metadata says which clients there are, and how.
            Self::PrivateKeyJwt => json!({
                "type": "openIdConnect",
                "openIdConnectUrl": about.discovery,
                "description": "A client signs what it authenticates by, and sends it in the form as `client_assertion` (RFC 7523 section 2.2)",
            }),
        }
    }
}

/// Takes out the line breaks and links of the source code.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(description)) = object.get_mut("description") {
                *description = description.replace('\n', " ").replace("[`", "`").replace("`]", "`");
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
