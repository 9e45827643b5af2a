//! The API as an OpenAPI document, made from the routes and the types that they take and give: for those who
//! write clients. docs/openapi.json is the same, and a test holds the two together.

use std::collections::BTreeMap;

use axum::routing::{MethodFilter, MethodRouter, any};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::api::{Asker, Refused};

/// One thing that can be asked.
pub struct Route {
    pub path: &'static str,
    pub method: MethodFilter,
    pub serve: fn(MethodFilter) -> MethodRouter<Asker>,
    /// What it is for, in one line.
    pub told: &'static str,
    pub query: Option<Shape>,
    pub body: Option<Shape>,
    /// JSON; nothing stands for what `media` says.
    pub answer: Option<Shape>,
    pub media: &'static str,
    /// Refusals besides those that every route knows.
    pub refusals: &'static [(u16, &'static str)],
}

/// Says what something looks like.
pub type Shape = fn(&mut SchemaGenerator) -> Schema;

impl Route {
    pub const GET: Self = Self::of(MethodFilter::GET);
    pub const POST: Self = Self::of(MethodFilter::POST);

    const fn of(method: MethodFilter) -> Self {
        Self {
            path: "",
            method,
            serve: |_| any(async || ()),
            told: "",
            query: None,
            body: None,
            answer: None,
            media: "text/plain",
            refusals: &[],
        }
    }
}

/// A type's shape, by its name.
pub fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A type's own fields, as a query has them.
pub fn parameters<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

/// Refusals that every route knows.
const REFUSALS: [(u16, &str); 5] = [
    (400, "The request means nothing"),
    (401, "By TCP: the token is missing or another"),
    (413, "The body is too large"),
    (500, "It failed"),
    (503, "The daemon is busy or about to end"),
];

/// The whole document.
pub fn document(routes: &[Route]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut asked = settings.clone().for_deserialize().into_generator();
    let mut told = settings.for_serialize().into_generator();
    let mut paths: BTreeMap<&str, BTreeMap<&str, Value>> = BTreeMap::new();
    for route in routes {
        let method = if route.method == MethodFilter::GET { "get" } else { "post" };
        let operation = operation(route, &mut asked, &mut told);
        paths.entry(route.path).or_default().insert(method, operation);
    }
    let error = shape::<Refused>(&mut told);
    let mut schemas = asked.take_definitions(true);
    schemas.extend(told.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "wherefore",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The daemon of wherefore. On the machine's own socket no token is asked for.",
        },
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "responses": { "Refused": {
                "description": "Why it is not done",
                "content": { "application/json": { "schema": error } },
            } },
            "schemas": schemas,
        },
    })
}

fn operation(route: &Route, asked: &mut SchemaGenerator, told: &mut SchemaGenerator) -> Value {
    let content = match route.answer {
        Some(shape) => json!({ "application/json": { "schema": shape(told) } }),
        None => json!({ route.media: { "schema": { "type": "string" } } }),
    };
    let done = ("200".to_owned(), json!({ "description": "Done", "content": content }));
    let refusals = REFUSALS.iter().chain(route.refusals).map(|(status, why)| {
        let refusal = json!({ "$ref": "#/components/responses/Refused", "description": why });
        (status.to_string(), refusal)
    });
    let responses: BTreeMap<String, Value> = refusals.chain([done]).collect();
    let mut operation = json!({ "summary": route.told, "responses": responses });
    let mut parameters = in_path(route.path);
    if let Some(shape) = route.query {
        parameters.extend(query(&shape(asked)));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(shape) = route.body {
        operation["requestBody"] =
            json!({ "content": { "application/json": { "schema": shape(asked) } } });
    }
    operation
}

/// What stands in braces in a path.
fn in_path(path: &str) -> Vec<Value> {
    let parts = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let told = |name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    parts.map(told).collect()
}

fn query(schema: &Schema) -> Vec<Value> {
    let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    fields
        .map(|(name, schema)| {
            let mut schema = schema.clone();
            let told = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            json!({ "name": name, "in": "query", "description": told, "schema": schema })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use expect_test::expect_file;

    use super::*;
    use crate::daemon::api::ROUTES;

    /// Where the API was changed on purpose: `UPDATE_EXPECT=1 cargo test -p recorder --lib openapi`.
    #[test]
    fn the_document_is_the_one_in_docs() {
        let document = serde_json::to_string_pretty(&document(ROUTES)).expect("JSON") + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        expect_file![path].assert_eq(&document);
    }

    #[test]
    fn every_name_in_the_document_stands_for_something() {
        let document = document(ROUTES);
        let mut names = Vec::new();
        references(&document, &mut names);
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            let pointer = name.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{name}");
        }
    }

    fn references(value: &Value, names: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                names.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, names));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, names)),
            _ => {}
        }
    }
}
