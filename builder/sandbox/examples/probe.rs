//! What `kiln info` has to say about this machine, as JSON.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    kiln_sandbox::init();
    let text = serde_json::to_string_pretty(&kiln_sandbox::host::probe())?;
    std::io::Write::write_all(&mut std::io::stdout(), (text + "\n").as_bytes())?;
    Ok(())
}
