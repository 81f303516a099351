//! What steps are called when there are several platforms: `linux/amd64->arm64` is a step that runs on the first to
//! make something for the second.

use kiln_grammar::expand::Variables;
use kiln_image::Platform;

use crate::Request;
use crate::plan::variables::StageScope;

/// What stands before a stage's name: nothing in a build for one platform. A step that does not know what it is for
/// is the same for all, and so is its name.
pub(super) fn prefix(request: &Request, platform: &Platform, scope: Option<&StageScope>) -> String {
    if request.other_platforms.is_empty() {
        return String::new();
    }
    let target = scope.and_then(target_of).filter(|target| target != platform);
    let target = target.map_or_else(String::new, |target| {
        if target.os == platform.os {
            let variant = target.variant.map_or_else(String::new, |variant| format!("/{variant}"));
            format!("->{}{variant}", target.architecture)
        } else {
            format!("->{target}")
        }
    });
    format!("{platform}{target} ")
}

/// The platform that a stage has asked for.
fn target_of(scope: &StageScope) -> Option<Platform> {
    let value = |name: &str| scope.get(name).filter(|value| !value.is_empty());
    if let Some(text) = value("TARGETPLATFORM") {
        return Platform::parse(&text).ok();
    }
    let (os, architecture) = (value("TARGETOS"), value("TARGETARCH")?);
    Some(Platform::new(os.as_deref().unwrap_or("linux"), &architecture, value("TARGETVARIANT").as_deref()))
}
