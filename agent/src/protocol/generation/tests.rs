//! Checks the parts of responses: cut at any byte against plain readers of the whole, and event by event for each API.

use proptest::prelude::*;

use super::{event_stream::EventStream, json_values::JsonValues, part::Part, usage::Usage, *};

/// Name and data of the events of a body that is fed in pieces of these sizes, again and again.
fn events(body: &[u8], sizes: &[usize]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut stream = EventStream::default();
    let mut found = Vec::new();
    for piece in pieces(body, sizes) {
        stream.push(piece, |event| match event {
            Piece::Whole { name, data } => found.push((name.to_vec(), data.to_vec())),
            Piece::End(_) => panic!("nothing is missing"),
        });
    }
    found
}

fn pieces<'a>(mut body: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &size in sizes.iter().cycle() {
        if body.is_empty() {
            break;
        }
        let (piece, rest) = body.split_at(size.min(body.len()));
        pieces.push(piece);
        body = rest;
    }
    pieces
}

/// Reads a whole event stream line by line, as the standard describes it.
fn plain_events(body: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let body = body.strip_prefix('\u{feff}').unwrap_or(body);
    let body = body.replace("\r\n", "\n").replace('\r', "\n");
    let mut found = Vec::new();
    let (mut name, mut data) = (String::new(), Vec::new());
    // What follows the last line end is no line.
    let lines: Vec<&str> = body.split('\n').collect();
    for line in &lines[..lines.len() - 1] {
        if line.is_empty() {
            if !data.is_empty() {
                found.push((name.clone().into_bytes(), data.join("\n").into_bytes()));
            }
            name.clear();
            data.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data.push(value.to_owned()),
            "event" => name = value.to_owned(),
            _ => {}
        }
    }
    found
}

fn line() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just(String::new()),
        Just("[DONE]".to_owned()),
        Just(r#"{"choices":[{"delta":{"content":"a\nb"}}]}"#.to_owned()),
        "[ -~äあ😀]{0,40}",
    ];
    let field = prop_oneof![
        4 => Just("data:"),
        2 => Just("data: "),
        1 => Just("event: "),
        1 => Just(": "),
        1 => Just("id:"),
        1 => Just("data"),
        1 => Just(" data: "),
        1 => Just(""),
    ];
    prop_oneof![3 => (field, value).prop_map(|(field, value)| field.to_owned() + &value), 2 => Just(String::new())]
}

fn event_stream() -> impl Strategy<Value = String> {
    let end = prop_oneof![3 => Just("\n"), 1 => Just("\r\n"), 1 => Just("\r")];
    let lines = prop::collection::vec((line(), end), 0..40);
    let start = prop_oneof![5 => Just(""), 1 => Just("\u{feff}")];
    (start, lines).prop_map(|(start, lines)| {
        let lines: String = lines.into_iter().map(|(line, end)| line + end).collect();
        start.to_owned() + &lines
    })
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        ".{0,20}".prop_map(Into::into),
        Just("}{][\"\\\n".into()),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map("[a-z\"\\\\]{0,6}", inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn objects() -> impl Strategy<Value = Vec<serde_json::Value>> {
    let object = prop::collection::hash_map("[a-z]{1,6}", json(), 0..5);
    let object = object.prop_map(|map| serde_json::Value::Object(map.into_iter().collect()));
    prop::collection::vec(object, 1..6)
}

fn values(body: &[u8], sizes: &[usize]) -> Vec<serde_json::Value> {
    let mut stream = JsonValues::default();
    let mut found = Vec::new();
    let mut add = |value: Piece<'_>| match value {
        Piece::Whole { data, .. } => found.push(serde_json::from_slice(data).unwrap()),
        Piece::End(_) => panic!("nothing is missing"),
    };
    for piece in pieces(body, sizes) {
        stream.push(piece, &mut add);
    }
    stream.finish(&mut add);
    found
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1_usize..60, 1..8)
}

proptest! {
    #[test]
    fn events_are_those_of_a_plain_reader(body in event_stream(), sizes in sizes()) {
        let expected = plain_events(&body);
        prop_assert_eq!(&events(body.as_bytes(), &sizes), &expected);
        prop_assert_eq!(&events(body.as_bytes(), &[1]), &expected);
    }

    #[test]
    fn json_values_are_those_of_serde(objects in objects(), sizes in sizes(), pretty: bool) {
        let text = |value: &serde_json::Value| match pretty {
            true => serde_json::to_string_pretty(value).unwrap(),
            false => value.to_string(),
        };
        let lines: String = objects.iter().map(|value| text(value) + "\n").collect();
        prop_assert_eq!(&values(lines.as_bytes(), &sizes), &objects);
        let array = text(&serde_json::Value::Array(objects.clone()));
        prop_assert_eq!(values(array.as_bytes(), &sizes), objects);
    }

    #[test]
    fn events_after_a_gap_are_whole_or_marked(body in event_stream(), from in 0_usize..300, len in 1_usize..300) {
        let body = body.as_bytes();
        let from = from.min(body.len());
        let until = (from + len).min(body.len());
        let mut stream = EventStream::default();
        let mut found = Vec::new();
        let mut add = |event: Piece<'_>| if let Piece::Whole { data, .. } = event {
            found.push(data.to_vec());
        };
        stream.push(&body[..from], &mut add);
        stream.skip();
        stream.push(&body[until..], &mut add);
        let all: Vec<Vec<u8>> = events(body, &[64]).into_iter().map(|(_, data)| data).collect();
        // An event of which no byte is missing is one of the body's; the others may differ only by the gap's ends.
        let untouched = found.iter().filter(|data| all.contains(data)).count();
        prop_assert!(untouched + 1 >= found.len(), "{:?} of {:?}", found, all);
    }

    #[test]
    fn values_with_any_bytes_and_gaps_break_nothing(parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..8)) {
        let (mut events, mut values) = (EventStream::default(), JsonValues::default());
        for (bytes, gap) in &parts {
            let mut add = |piece: Piece<'_>| {
                Part::of(piece, true);
            };
            events.push(bytes, &mut add);
            values.push(bytes, &mut add);
            if *gap {
                events.skip();
                values.skip();
            }
        }
        values.finish(|_| {});
    }
}

fn usage(input: impl Into<Option<u64>>, output: impl Into<Option<u64>>) -> Usage {
    Usage {
        input: input.into(),
        output: output.into(),
    }
}

/// What an event with this data means.
fn part(data: &str) -> Part {
    let (name, data) = (b"", data.as_bytes());
    Part::of(Piece::Whole { name, data }, true)
}

#[test]
fn events_with_content_are_those_of_each_api() {
    for (data, has_content) in [
        // Cohere's chat, of versions 2 and 1.
        (
            r#"{"type":"content-start","delta":{"message":{"content":{"type":"text","text":""}}}}"#,
            false,
        ),
        (
            r#"{"type":"content-delta","delta":{"message":{"content":{"text":"Hi"}}}}"#,
            true,
        ),
        (
            r#"{"type":"content-delta","delta":{"message":{"content":{"text":""}}}}"#,
            false,
        ),
        (
            r#"{"type":"tool-plan-delta","delta":{"message":{"tool_plan":"I"}}}"#,
            true,
        ),
        (r#"{"type":"tool-call-delta","delta":{}}"#, true),
        (
            r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE"}}"#,
            false,
        ),
        (
            r#"{"event_type":"stream-start","generation_id":"g"}"#,
            false,
        ),
        (r#"{"event_type":"text-generation","text":"Hi"}"#, true),
        (
            r#"{"event_type":"stream-end","response":{"text":"Hi"}}"#,
            false,
        ),
        // OpenAI chat.
        (
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}"#,
            false,
        ),
        (
            r#"{"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}"#,
            true,
        ),
        (r#"{"choices":[{"index":0,"delta":{"content":" "}}]}"#, true),
        (
            r#"{"choices":[{"delta":{"content":null,"reasoning_content":"Hm"}}]}"#,
            true,
        ),
        (r#"{"choices":[{"delta":{"reasoning":"Hm"}}]}"#, true),
        (
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":""}}]}}]}"#,
            true,
        ),
        (r#"{"choices":[{"delta":{"tool_calls":[]}}]}"#, false),
        (
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            false,
        ),
        (
            r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
            false,
        ),
        ("[DONE]", false),
        // OpenAI completions.
        (
            r#"{"choices":[{"index":0,"text":"Hi","logprobs":null,"finish_reason":null}]}"#,
            true,
        ),
        (
            r#"{"choices":[{"index":0,"text":"","finish_reason":"length"}]}"#,
            false,
        ),
        // OpenAI responses.
        (
            r#"{"type":"response.created","response":{"id":"r","output":[],"usage":null}}"#,
            false,
        ),
        (
            r#"{"type":"response.output_item.added","item":{"type":"message","content":[]}}"#,
            false,
        ),
        (
            r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"f"}}"#,
            true,
        ),
        (
            r#"{"type":"response.output_text.delta","delta":"Hi"}"#,
            true,
        ),
        (r#"{"type":"response.output_text.delta","delta":""}"#, false),
        (
            r#"{"type":"response.reasoning_text.delta","delta":"Hm"}"#,
            true,
        ),
        (
            r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#,
            true,
        ),
        (r#"{"type":"response.output_text.done","text":"Hi"}"#, false),
        (
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":2}}}"#,
            false,
        ),
        // Anthropic.
        (
            r#"{"type":"message_start","message":{"content":[],"usage":{"input_tokens":5,"output_tokens":1}}}"#,
            false,
        ),
        (
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            false,
        ),
        (
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","name":"f"}}"#,
            true,
        ),
        (r#"{"type":"ping"}"#, false),
        (
            r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}"#,
            true,
        ),
        (
            r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"Hm"}}"#,
            true,
        ),
        (
            r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":""}}"#,
            false,
        ),
        (
            r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}"#,
            true,
        ),
        (
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}"#,
            false,
        ),
        // Gemini.
        (
            r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"}}]}"#,
            true,
        ),
        (
            r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]}}]}"#,
            true,
        ),
        (
            r#"{"candidates":[{"content":{"parts":[{"text":""}]},"finishReason":"STOP"}]}"#,
            false,
        ),
        (r#"{"usageMetadata":{"promptTokenCount":3}}"#, false),
        // Ollama.
        (r#"{"model":"m","response":"Hi","done":false}"#, true),
        (
            r#"{"model":"m","response":"","thinking":"Hm","done":false}"#,
            true,
        ),
        (
            r#"{"model":"m","response":"","done":true,"eval_count":4}"#,
            false,
        ),
        (
            r#"{"model":"m","message":{"role":"assistant","content":"Hi"},"done":false}"#,
            true,
        ),
        (
            r#"{"model":"m","message":{"role":"assistant","content":""},"done":true}"#,
            false,
        ),
        // TGI.
        (
            r#"{"index":1,"token":{"id":5,"text":" a","special":false},"generated_text":null,"details":null}"#,
            true,
        ),
        (
            r#"{"index":2,"token":{"id":2,"text":"</s>","special":true},"generated_text":" a"}"#,
            false,
        ),
        // llama.cpp.
        (
            r#"{"index":0,"content":"Hi","tokens":[1],"stop":false,"id_slot":0}"#,
            true,
        ),
        (
            r#"{"index":0,"content":"","tokens":[],"stop":true,"timings":{}}"#,
            false,
        ),
        // SGLang, Triton.
        (
            r#"{"text":"Hi","meta_info":{"prompt_tokens":2,"completion_tokens":1,"finish_reason":null}}"#,
            true,
        ),
        (r#"{"model_name":"m","text_output":"Hi"}"#, true),
        (r#"{"model_name":"m","text_output":""}"#, false),
        // Text, and nothing.
        ("hello", true),
        (r#""hello""#, true),
        ("{}", false),
        (r#"{"error":{"message":"x"}}"#, false),
    ] {
        let part = part(data);
        assert_eq!(
            (part.has_content, part.is_known),
            (has_content, true),
            "{data}"
        );
    }
}

#[test]
fn events_of_unknown_form_are_not_judged() {
    for data in [
        r#"{"tok":"Hi"}"#,
        "[1,2]",
        "12",
        "null",
        r#"{"type":"new","x":1}"#,
    ] {
        assert!(!part(data).is_known, "{data}");
    }
}

#[test]
fn named_pings_have_no_content() {
    for name in ["ping", "heartbeat", "error"] {
        let piece = Piece::Whole {
            name: name.as_bytes(),
            data: b"anything",
        };
        assert!(!Part::of(piece, true).has_content, "{name}");
    }
}

#[test]
fn usage_has_the_names_of_each_api() {
    for (data, expected) in [
        (
            r#"{"type":"message-end","delta":{"usage":{"billed_units":{"input_tokens":1,"output_tokens":12},"tokens":{"input_tokens":7,"output_tokens":12}}}}"#,
            usage(7, 12),
        ),
        (
            r#"{"event_type":"stream-end","response":{"meta":{"tokens":{"input_tokens":7,"output_tokens":12}}}}"#,
            usage(7, 12),
        ),
        (
            r#"{"text":"Hi","meta":{"tokens":{"input_tokens":7,"output_tokens":12}}}"#,
            usage(7, 12),
        ),
        (
            r#"{"choices":[],"x_groq":{"usage":{"prompt_tokens":7,"completion_tokens":12}}}"#,
            usage(7, 12),
        ),
        (
            r#"{"token":{"text":"a"},"details":{"generated_tokens":12,"input_length":7}}"#,
            usage(7, 12),
        ),
        (
            r#"{"choices":[],"usage":{"prompt_tokens":7,"total_tokens":19,"completion_tokens":12}}"#,
            usage(7, 12),
        ),
        (
            r#"{"object":"list","data":[],"usage":{"prompt_tokens":7,"total_tokens":7}}"#,
            usage(7, None),
        ),
        (
            r#"{"object":"response","usage":{"input_tokens":7,"output_tokens":12,"input_tokens_details":{"cached_tokens":5}}}"#,
            usage(7, 12),
        ),
        (
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":7,"output_tokens":12}}}"#,
            usage(7, 12),
        ),
        (
            r#"{"type":"message","content":[],"usage":{"input_tokens":3,"cache_creation_input_tokens":4,"cache_read_input_tokens":5,"output_tokens":6}}"#,
            usage(12, 6),
        ),
        (
            r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}"#,
            usage(3, 1),
        ),
        (
            r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":6}}"#,
            usage(None, 6),
        ),
        (
            r#"{"candidates":[],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":4,"thoughtsTokenCount":5,"totalTokenCount":12}}"#,
            usage(3, 9),
        ),
        (
            r#"{"response":"","done":true,"prompt_eval_count":3,"eval_count":4}"#,
            usage(3, 4),
        ),
        (
            r#"{"content":"x","stop":true,"tokens_predicted":4,"tokens_evaluated":3,"timings":{"prompt_n":1}}"#,
            usage(3, 4),
        ),
        (
            r#"{"content":"x","stop":true,"timings":{"cache_n":2,"prompt_n":1,"predicted_n":4}}"#,
            usage(3, 4),
        ),
        (
            r#"{"text":"x","meta_info":{"prompt_tokens":3,"completion_tokens":4}}"#,
            usage(3, 4),
        ),
        (
            r#"{"token":{"text":"a"},"generated_text":"a","details":{"generated_tokens":4}}"#,
            usage(None, 4),
        ),
        (r#"{"choices":[],"usage":null}"#, usage(None, None)),
        (
            r#"{"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":1.5}}"#,
            usage(None, None),
        ),
        (
            r#"{"choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":9}"}}]}"#,
            usage(None, None),
        ),
    ] {
        assert_eq!(part(data).usage, expected, "{data}");
    }
}

/// The usage that is found in the last bytes of an object.
fn at_end(end: &str, nested: bool) -> Usage {
    usage::usage_at_end(end.as_bytes(), nested)
}

#[test]
fn usage_is_found_in_the_start_of_a_response() {
    for (start, expected) in [
        (
            r#"{"id":"\"usage\"","a":[{}],"usage" : {"prompt_tokens":7,"completion_tokens":12},"choices":[{"#,
            usage(7, 12),
        ),
        (
            r#"{"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":12},"x"#,
            usage(7, 12),
        ),
        // In another member, in a text, and cut off.
        (r#"{"a":{"usage":{"prompt_tokens":7}},"#, usage(None, None)),
        (
            r#"{"a":"{\"usage\":{\"prompt_tokens\":7}}","#,
            usage(None, None),
        ),
        (r#"{"usage":{"prompt_tokens":7,"#, usage(None, None)),
        (r#"{"usage","#, usage(None, None)),
    ] {
        assert_eq!(usage::usage_at_start(start.as_bytes()), expected, "{start}");
    }
}

#[test]
fn usage_is_found_in_the_end_of_a_response() {
    for (end, expected) in [
        (
            r#"lo"}}],"usage":{"prompt_tokens":7,"completion_tokens":12},"kv":null}"#,
            usage(7, 12),
        ),
        (
            "\"x\":1,\n \"usage\" : {\"prompt_tokens\":7,\n\"completion_tokens\":12}\n}\n",
            usage(7, 12),
        ),
        (
            r#"1,2],"total_duration":5,"prompt_eval_count":3,"prompt_eval_duration":9,"eval_count":4,"eval_duration":1}"#,
            usage(3, 4),
        ),
        (
            r#"},"timings":{"cache_n":2,"prompt_n":1,"predicted_n":4}}"#,
            usage(3, 4),
        ),
        // In a text, in another member, and without its beginning.
        (
            r#"a \"usage\":{\"prompt_tokens\":7}"}]}"#,
            usage(None, None),
        ),
        (
            r#""metadata":{"usage":{"prompt_tokens":7}}}"#,
            usage(None, None),
        ),
        (r#"age":{"prompt_tokens":7}}"#, usage(None, None)),
        (r#""usage":{"prompt_tokens":7}"#, usage(None, None)),
        ("", usage(None, None)),
    ] {
        assert_eq!(at_end(end, false), expected, "{end}");
    }
}

#[test]
fn usage_of_an_event_may_be_in_its_response() {
    for end in [
        r#"hi"}],"usage":{"input_tokens":7,"output_tokens":12},"user":null},"sequence_number":9,"type":"response.completed"}"#,
        r#"hi"}],"usage":{"input_tokens":7,"output_tokens":12}}}"#,
        r#"hi"}],"usage":{"input_tokens":7,"output_tokens":12}}"#,
    ] {
        assert_eq!(at_end(end, true), usage(7, 12), "{end}");
    }
}

#[test]
fn an_event_with_missing_bytes_states_its_usage() {
    let mut stream = EventStream::default();
    let mut found = Vec::new();
    let mut add = |piece: Piece<'_>| {
        let is_whole = matches!(piece, Piece::Whole { .. });
        found.push((is_whole, Part::of(piece, true).usage));
    };
    stream.push(
        b"data: {\"type\":\"response.completed\",\"response\":{\"out",
        &mut add,
    );
    stream.skip();
    stream.push(
        b"x\"}],\"usage\":{\"input_tokens\":7,\"output_tokens\":12}}}\n",
        &mut add,
    );
    stream.push(b"\ndata: [DONE]\n\n", &mut add);
    assert_eq!(found, [(false, usage(7, 12)), (true, usage(None, None))]);
}

#[test]
fn a_value_with_missing_bytes_states_its_usage() {
    let mut values = JsonValues::default();
    let mut found = Vec::new();
    let mut add = |piece: Piece<'_>| {
        let is_whole = matches!(piece, Piece::Whole { .. });
        found.push((is_whole, Part::of(piece, false).usage));
    };
    values.push(b"{\"choices\":[{\"text\":\"", &mut add);
    values.skip();
    values.push(
        b"\"}],\"usage\":{\"prompt_tokens\":7}}\n{\"done\":1,\"eval_count\":4}",
        &mut add,
    );
    values.finish(&mut add);
    assert_eq!(found, [(false, usage(7, None)), (true, usage(None, 4))]);
}

#[test]
fn parts_beyond_the_limit_keep_their_end() {
    let long = format!(
        "{{\"choices\":[{{\"text\":\"{}\"}}],\"usage\":{{\"prompt_tokens\":7}}}}",
        "x".repeat(PART_CAP)
    );
    let mut found = Vec::new();
    let mut add = |piece: Piece<'_>| found.push(Part::of(piece, false));
    JsonValues::default().push(long.as_bytes(), &mut add);
    EventStream::default().push(format!("data: {long}\n\n").as_bytes(), &mut add);
    assert_eq!(found.len(), 2);
    for part in found {
        assert_eq!((part.usage, part.is_known), (usage(7, None), false));
    }
}

#[test]
fn choices_are_counted() {
    let second = r#"{"choices":[{"index":1,"delta":{"content":"Hi"}}]}"#;
    assert_eq!((part(second).choices, part("hello").choices), (2, 0));
}
