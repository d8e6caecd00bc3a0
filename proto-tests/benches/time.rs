//! The hot paths in time: `cargo bench --package proto-tests --bench time`. Each is given per call; those that read bulk
//! also in bytes a second.

mod hot;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn time(criterion: &mut Criterion) {
    for mut path in hot::paths() {
        let (group, name) = path.name.split_once('/').expect("a group");
        let mut group = criterion.benchmark_group(group);
        // One call's time is the reciprocal of what is printed; long values are better told in bytes.
        let bulk = path.bytes / path.calls > 4096;
        group.throughput(if bulk { Throughput::Bytes(path.bytes) } else { Throughput::Elements(path.calls) });
        group.bench_function(name, |bencher| bencher.iter(&mut path.run));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = time
}
criterion_main!(benches);
