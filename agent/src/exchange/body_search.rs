//! Searches a request's body for the model that it names, while the body is read.
//!
//! Takes the bytes of the body in order, decompresses them, and keeps none.
//! Does not depend on: where bodies begin and end, heads.

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::protocol::{
    body_format::{BodyFormat, Coding},
    form_model::FormModel,
    json_model::{BodyModel, JsonModel},
    url_encoded_model::UrlEncodedModel,
};

/// Most bytes of a decompressed body that are searched: a small body may become a very large one.
const DECODED_CAP: usize = 4 << 20;
/// Buffer of a decompressor, bytes.
const BUFFER_BYTES: usize = 4096;

/// Looks for the model in what a body contains.
#[derive(Debug, Clone)]
enum Scan {
    Json(JsonModel),
    Form(FormModel),
    UrlEncoded(UrlEncodedModel),
}

/// The content of a body, as far as it was decompressed.
#[derive(Debug, Clone)]
struct Content {
    scan: Scan,
    bytes: usize,
}

impl Content {
    fn push(&mut self, bytes: &[u8]) -> bool {
        self.bytes += bytes.len();
        let wants_more = match &mut self.scan {
            Scan::Json(scan) => scan.push(bytes),
            Scan::Form(scan) => scan.push(bytes),
            Scan::UrlEncoded(scan) => {
                scan.push(bytes);
                true
            }
        };
        wants_more && self.bytes < DECODED_CAP
    }

    /// Returns what was read says; `whole`: nothing follows it.
    fn verdict(&self, whole: bool) -> BodyModel {
        match &self.scan {
            Scan::Json(scan) => scan.verdict(),
            Scan::Form(scan) => scan.verdict(),
            Scan::UrlEncoded(scan) => scan.verdict(whole),
        }
    }
}

/// Receives what a decompressor writes, until no more is wanted.
impl Write for Content {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.push(bytes) {
            true => Ok(bytes.len()),
            false => Err(io::ErrorKind::Other.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What decodes a body.
enum Decoder {
    Identity(Content),
    Gzip(Box<MultiGzDecoder<Content>>),
    Zlib(Box<ZlibDecoder<Content>>),
    Deflate(Box<DeflateDecoder<Content>>),
    Brotli(Box<DecompressorWriter<Content>>),
    /// `deflate` before its first byte, which says whether zlib's header comes.
    Undecided(Content),
}

/// The search of one body.
pub struct BodySearch {
    /// `None` once the result is known.
    decoder: Option<Decoder>,
    found: BodyModel,
}

impl std::fmt::Debug for BodySearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodySearch")
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

impl BodySearch {
    /// Starts before the first byte of a body that is written like this.
    pub fn new(format: &BodyFormat) -> Self {
        let form = format.boundary.as_deref().and_then(FormModel::new);
        let content = Content {
            scan: match form {
                Some(form) => Scan::Form(form),
                None if format.is_url_encoded => Scan::UrlEncoded(UrlEncodedModel::default()),
                None => Scan::Json(JsonModel::default()),
            },
            bytes: 0,
        };
        let decoder = match format.coding {
            Coding::Identity => Decoder::Identity(content),
            Coding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(content))),
            Coding::Deflate => Decoder::Undecided(content),
            Coding::Brotli => {
                Decoder::Brotli(Box::new(DecompressorWriter::new(content, BUFFER_BYTES)))
            }
            Coding::Other => return Self::over(BodyModel::Unknown),
        };
        Self {
            decoder: Some(decoder),
            found: BodyModel::Unknown,
        }
    }

    /// Makes one for a request without a body.
    pub const fn without_body() -> Self {
        Self::over(BodyModel::Absent)
    }

    /// Makes one for a body whose beginning was not copied.
    pub const fn hidden() -> Self {
        Self::over(BodyModel::Unknown)
    }

    const fn over(found: BodyModel) -> Self {
        Self {
            decoder: None,
            found,
        }
    }

    /// Whether the body is decompressed, which takes memory.
    pub fn decompresses(&self) -> bool {
        !matches!(self.decoder, None | Some(Decoder::Identity(_)))
    }

    /// Adds the next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.decoder = self.decoder.take().map(|decoder| match decoder {
            Decoder::Undecided(content) if begins_zlib(bytes) => {
                Decoder::Zlib(Box::new(ZlibDecoder::new(content)))
            }
            Decoder::Undecided(content) => Decoder::Deflate(Box::new(DeflateDecoder::new(content))),
            decided => decided,
        });
        let wants_more = match &mut self.decoder {
            None => return,
            Some(Decoder::Identity(content)) => content.push(bytes),
            Some(Decoder::Gzip(decoder)) => decoder.write_all(bytes).is_ok(),
            Some(Decoder::Zlib(decoder)) => decoder.write_all(bytes).is_ok(),
            Some(Decoder::Deflate(decoder)) => decoder.write_all(bytes).is_ok(),
            Some(Decoder::Brotli(decoder)) => decoder.write_all(bytes).is_ok(),
            Some(Decoder::Undecided(_)) => true,
        };
        if !wants_more {
            self.end();
        }
    }

    /// Ends the search: the next bytes of the body were not copied, or do not matter.
    pub fn end(&mut self) {
        self.end_after(false);
    }

    /// Ends the search; `whole`: the body is over.
    fn end_after(&mut self, whole: bool) {
        let Some(decoder) = self.decoder.take() else {
            return;
        };
        // What was decompressed before a fault counts, so the faults themselves do not.
        self.found = match decoder {
            Decoder::Identity(content) | Decoder::Undecided(content) => content.verdict(whole),
            Decoder::Gzip(mut decoder) => {
                let _ = decoder.flush();
                decoder.get_ref().verdict(whole)
            }
            Decoder::Zlib(mut decoder) => {
                let _ = decoder.flush();
                decoder.get_ref().verdict(whole)
            }
            Decoder::Deflate(mut decoder) => {
                let _ = decoder.flush();
                decoder.get_ref().verdict(whole)
            }
            Decoder::Brotli(mut decoder) => {
                let _ = decoder.flush();
                decoder.get_ref().verdict(whole)
            }
        };
    }

    /// Returns what the body says, as far as it was decompressed.
    pub fn so_far(&self) -> BodyModel {
        match &self.decoder {
            None => self.found.clone(),
            Some(Decoder::Identity(content) | Decoder::Undecided(content)) => {
                content.verdict(false)
            }
            Some(Decoder::Gzip(decoder)) => decoder.get_ref().verdict(false),
            Some(Decoder::Zlib(decoder)) => decoder.get_ref().verdict(false),
            Some(Decoder::Deflate(decoder)) => decoder.get_ref().verdict(false),
            Some(Decoder::Brotli(decoder)) => decoder.get_ref().verdict(false),
        }
    }

    /// Returns a copy that can be continued; of a body that is decompressed, one that is over.
    pub fn glimpse(&self) -> Self {
        match &self.decoder {
            Some(Decoder::Identity(content)) => Self {
                decoder: Some(Decoder::Identity(content.clone())),
                found: self.found.clone(),
            },
            _ => Self::over(self.so_far()),
        }
    }

    /// Returns what the body says, which is over, as far as it was searched.
    pub fn verdict(&mut self) -> BodyModel {
        self.end_after(true);
        self.found.clone()
    }
}

/// Whether bytes begin with zlib's header (RFC 1950, section 2.2); without its second byte, its first must do.
fn begins_zlib(bytes: &[u8]) -> bool {
    const DEFLATE: u8 = 8;
    match *bytes {
        [first, second, ..] => {
            first & 0xf == DEFLATE && (u16::from(first) << 8 | u16::from(second)).is_multiple_of(31)
        }
        [first] => first & 0xf == DEFLATE && first >> 4 <= 7,
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn format(coding: Coding, boundary: Option<&str>) -> BodyFormat {
        BodyFormat {
            coding,
            boundary: boundary.map(Box::from),
            is_url_encoded: false,
        }
    }

    fn named(model: &str) -> BodyModel {
        BodyModel::Named(model.into())
    }

    fn found(format: &BodyFormat, body: &[u8]) -> BodyModel {
        let mut search = BodySearch::new(format);
        for piece in body.chunks(7) {
            search.push(piece);
        }
        search.verdict()
    }

    #[test]
    fn a_body_in_several_members_of_gzip_is_read_whole() {
        let body = [gzip(br#"{"messages":[1],"#), gzip(br#""model":"m"}"#)].concat();
        assert_eq!(found(&format(Coding::Gzip, None), &body), named("m"));
    }

    #[test]
    fn a_compressed_form_names_its_model() {
        let form = b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n--b--\r\n";
        let format = format(Coding::Gzip, Some("b"));
        assert_eq!(found(&format, &gzip(form)), named("m"));
        assert_eq!(found(&format, form), BodyModel::Unknown);
    }

    #[test]
    fn a_form_that_is_written_like_a_query_names_its_model() {
        for (coding, body) in [
            (Coding::Identity, b"file=x&model=m".to_vec()),
            (Coding::Gzip, gzip(b"model=n&file=x&model=m")),
        ] {
            let format = BodyFormat {
                is_url_encoded: true,
                ..format(coding, None)
            };
            assert_eq!(found(&format, &body), named("m"), "{coding:?}");
        }
    }

    #[test]
    fn a_boundary_that_no_form_has_leaves_json() {
        let format = format(Coding::Identity, Some(""));
        assert_eq!(found(&format, br#"{"model":"m"}"#), named("m"));
    }

    #[test]
    fn an_unknown_coding_is_not_read() {
        let format = format(Coding::Other, None);
        assert_eq!(found(&format, br#"{"model":"m"}"#), BodyModel::Unknown);
    }

    #[test]
    fn a_body_without_a_model_or_without_bytes_names_none_or_is_unknown() {
        let plain = format(Coding::Identity, None);
        assert_eq!(found(&plain, b"\x89PNG"), BodyModel::Absent);
        for coding in [
            Coding::Identity,
            Coding::Gzip,
            Coding::Deflate,
            Coding::Brotli,
        ] {
            assert_eq!(found(&format(coding, None), b""), BodyModel::Unknown);
        }
        assert_eq!(BodySearch::without_body().verdict(), BodyModel::Absent);
        assert_eq!(BodySearch::hidden().verdict(), BodyModel::Unknown);
    }

    #[test]
    fn what_comes_before_a_gap_counts_and_nothing_after_it() {
        let mut search = BodySearch::new(&format(Coding::Identity, None));
        search.push(br#"{"model":"a","x":"#);
        assert_eq!(search.so_far(), named("a"));
        search.end();
        search.push(br#"1,"model":"b"}"#);
        assert_eq!(search.verdict(), named("a"));
    }

    #[test]
    fn a_body_that_decompresses_to_very_much_is_read_up_to_a_limit() {
        let body = [
            &b"{\"x\":\""[..],
            &vec![b'x'; 3 * DECODED_CAP],
            b"\",\"model\":\"m\"}",
        ]
        .concat();
        let sent = gzip(&body);
        let mut search = BodySearch::new(&format(Coding::Gzip, None));
        search.push(&sent);
        assert!(search.decoder.is_none(), "the rest is not decompressed");
        assert_eq!(search.verdict(), BodyModel::Unknown);
    }

    #[test]
    fn bytes_that_are_not_compressed_do_not_break() {
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli] {
            for first in 0..=u8::MAX {
                let verdict = found(&format(coding, None), &[first, 0x9c, 0xff, first, 3, 7]);
                assert!(
                    !matches!(verdict, BodyModel::Named(_)),
                    "{coding:?} {first}"
                );
            }
        }
    }
}
