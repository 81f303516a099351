//! Dockerfiles of a size that nobody writes by hand: answered quickly, and in memory that is bounded.

use kiln_tests::Kiln;

#[test]
fn a_hundred_megabytes_are_refused_in_memory_that_is_bounded() {
    let kiln = Kiln::new();
    let context = kiln.directory();
    let line = "RUN echo a line like many others, of a hundred bytes or so: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n";
    context.write("Dockerfile", "FROM scratch\n".to_owned() + &line.repeat((100 << 20) / line.len()));
    let command = kiln.command(["build", context.path().to_str().expect("text")]);
    // room for the file, its copy and the program; not for a tree of it
    let mut limited = kiln_tests::command("prlimit", ["--as=1500000000", "--"]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    kiln_tests::run(limited).no_panic().failure().says("16 at most are read").says("COPY them");
}

#[test]
fn ten_thousand_stages_are_built_and_checked() {
    let kiln = Kiln::new();
    let context = kiln.directory();
    let mut text = "FROM scratch AS s0\n".to_owned();
    for stage in 1..10_000 {
        text.push_str(&format!("FROM s{} AS s{stage}\nLABEL a=$V{stage}\n", stage - 1));
    }
    context.write("Dockerfile", &text);
    let path = context.path().to_str().expect("text").to_owned();
    kiln.try_run(["build", "--check", &path]).failure().says("5000 warnings have been found");
    kiln.run(["build", "--quiet", "-t", "t", &path]);
}
