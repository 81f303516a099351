//! Dockerfiles that can be parsed and not planned, beside what is said of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod request;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use kiln_build::Error;
use kiln_build::plan::{ImageSource, make};
use kiln_image::{Image, ImageConfig, Platform, Reference};
use kiln_store::Digest;

/// Every image but those called `none`.
struct Named;

impl ImageSource for Named {
    fn image(&self, reference: &Reference, _: &Platform) -> Result<Image, Error> {
        if !["x", "base"].iter().any(|known| reference.familiar().starts_with(known)) {
            return Err(kiln_image::Error::NoSuchImage { text: reference.familiar() }.into());
        }
        let config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
        Ok(Image { id: Digest::of(b""), config, layers: Vec::new(), manifest: None, elsewhere: BTreeMap::new() })
    }

    fn layout(&self, _: &Path, _: Option<&str>, platform: &Platform) -> Result<Image, Error> {
        self.image(&Reference::parse("x").unwrap(), platform)
    }
}

const CASES: [&str; 46] = [
    "ARG A\nFROM $A\n",
    "FROM Upper/Case\n",
    "FROM x:bad:tag\n",
    "FROM x@sha256:12\n",
    "ARG V\nFROM x:$V\n",
    "FROM none\n",
    "FROM x AS builder\nFROM bulider\n",
    "FROM --platform=linux/amd64/v8/x x\n",
    "FROM --platform=$NOTHING x\n",
    "FROM ${A:?give it with --build-arg A=1}\n",
    "FROM x\nCOPY --from=none a b\n",
    "FROM x AS builder\nFROM x\nCOPY --from=bulider a b\n",
    "FROM x\nCOPY --from=7 a b\n",
    "FROM x AS a\nCOPY --from=b a b\nFROM a AS b\nCOPY --from=a a b\n",
    "FROM x AS a\nCOPY --from=a a b\n",
    "FROM x\nCOPY a b /c\n",
    "FROM x\nCOPY --chmod=rwx a b\n",
    "FROM x\nCOPY --chmod=99 a b\n",
    "FROM x\nCOPY --chmod=77777 a b\n",
    "FROM x\nCOPY https://example.com/a b\n",
    "FROM x\nEXPOSE http\n",
    "FROM x\nEXPOSE 80/tpc\n",
    "FROM x\nEXPOSE 9-8\n",
    "FROM x\nEXPOSE 99999\n",
    "FROM x\nSTOPSIGNAL SIGTREM\n",
    "FROM x\nSTOPSIGNAL 99\n",
    "FROM x\nVOLUME $UNSET\n",
    "FROM x\nENV $UNSET=1\n",
    "FROM x\nENV A=${B:?must-be-set}\n",
    "FROM x\nENV A=${B\n",
    "FROM x\nENV A=${B^^}\n",
    "FROM x\nENV A=\"open\n",
    "FROM x\nWORKDIR ${}\n",
    "FROM x\nLABEL a='open\n",
    "FROM x\nUSER ${A%%\\x}\n",
    "FROM x\nRUN --mount=type=chache,target=/x true\n",
    "FROM x\nRUN --mount=type=cache,targt=/x true\n",
    "FROM x\nRUN --mount=type=bind,sharing=locked,target=/x true\n",
    "FROM x\nRUN --mount=type=cache,target=/x,sharing=exclusive true\n",
    "FROM x\nRUN --mount=type=cache,target=/x,mode=rw true\n",
    "FROM x\nRUN --mount=type=tmpfs,target=/x,size=much true\n",
    "FROM x\nRUN --mount=type=secret true\n",
    "FROM x\nRUN --mount=type=secret,id=key,required true\n",
    "FROM x\nRUN --mount=type=bind,from=$A,target=/x true\n",
    "FROM x\nRUN --mount=type=bind,target=/ true\n",
    "FROM x AS build\nRUN --mount=type=bind,from=biuld,target=/x true\n",
];

/// Proves: D1.1-17, D1.3-4, D1.3-10, D1.4-8, D1.4-11, D1.8-17, D1.10-1, D1.10-17, D1.13-19
#[test]
fn errors_of_the_plan_say_what_to_do() {
    let mut text = String::new();
    for source in CASES {
        let dockerfile = kiln_grammar::parse(source.as_bytes());
        let diagnostic = match dockerfile.map(|dockerfile| make(&dockerfile, &request::of(source.as_bytes()), &Named)) {
            Ok(Err(Error::Dockerfile(diagnostic))) | Err(diagnostic) => diagnostic,
            Ok(Ok(_)) => panic!("{source} can be planned"),
            Ok(Err(other)) => panic!("{source}: {other}"),
        };
        let rendered = diagnostic.render("Dockerfile", source.as_bytes(), false);
        assert!(diagnostic.label.is_some() || diagnostic.help.is_some(), "nobody knows what to do:\n{rendered}");
        writeln!(text, "{rendered}\n").unwrap();
    }
    insta::with_settings!({ snapshot_path => "errors", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("plan", text);
    });
}
