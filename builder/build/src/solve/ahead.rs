//! Layers of base images that are needed whatever the cache has: they come while the context is looked at.

use kiln_store::{DiffId, Store};

use super::wanted;
use crate::plan::{Operation, Plan};
use crate::progress::Reporter;
use crate::{Request, Result};

/// Does `work` while they come. They are there when it needs them, for it waits for each; when it fails, what is still on
/// its way is given up.
pub(crate) fn fetch_while<T>(
    store: &Store,
    request: &Request,
    plan: &Plan,
    reporter: &dyn Reporter,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let exchange = &request.exchange;
    let layers = needed(request, plan);
    if !exchange.lacks(&layers) {
        return work();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whoever needs what did not come tries again, and says why it does not.
            if let Err(error) = exchange.ensure(store, reporter, &layers) {
                tracing::debug!(%error, "fetch ahead");
            }
        });
        work().inspect_err(|_| exchange.give_up())
    })
}

/// Those of the results; and of every image that steps need when none of them is to be found in the cache.
fn needed(request: &Request, plan: &Plan) -> Vec<DiffId> {
    let mut images = Vec::new();
    let kept = if request.passed_on_to.is_empty() { plan.targets.as_slice() } else { &[] };
    for target in kept.iter().chain(&plan.stages) {
        let below = std::iter::successors(target.result, |vertex| plan.vertices[*vertex].parent);
        images.extend(below.last());
    }
    if request.no_cache {
        images.extend(wanted(plan).into_iter().enumerate().filter_map(|(id, wanted)| wanted.then_some(id)));
    }
    let mut layers = Vec::new();
    for image in images {
        if let Operation::Image { layers: of_image } = &plan.vertices[image].operation {
            layers.extend(of_image.iter().copied().filter(|layer| !layers.contains(layer)).collect::<Vec<_>>());
        }
    }
    layers
}
