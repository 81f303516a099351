//! What stands between `{{` and `}}`: values, functions, and pipes from one to the next.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Commands that each get the result of the one before as their last argument.
#[derive(Debug)]
pub(super) struct Pipeline(Vec<Command>);

#[derive(Debug)]
struct Command {
    function: Option<Function>,
    arguments: Vec<Operand>,
}

#[derive(Debug, Clone, Copy)]
enum Function {
    Json,
    Index,
    Join,
    Split,
    Upper,
    Lower,
    Title,
    Len,
    Println,
}

#[derive(Debug)]
enum Operand {
    /// `.A.B` from the dot, or from the whole with `$`.
    Field {
        from_root: bool,
        path: Vec<String>,
    },
    Literal(Value),
    /// In parentheses, and what is taken of its value: `(index .A 0).B`.
    Nested(Pipeline, Vec<String>),
}

impl Pipeline {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut tokens = tokenize(text)?.into_iter().peekable();
        let pipeline = Self::parse_tokens(&mut tokens)?;
        if tokens.next().is_some() {
            bail!("a closing parenthesis too many in {{{{{text}}}}}");
        }
        Ok(pipeline)
    }

    fn parse_tokens(tokens: &mut std::iter::Peekable<std::vec::IntoIter<Token>>) -> Result<Self> {
        let mut commands = vec![Command { function: None, arguments: Vec::new() }];
        while let Some(token) = tokens.next_if(|token| !matches!(token, Token::Close(_))) {
            let Some(command) = commands.last_mut() else { bail!("an empty action") };
            match token {
                Token::Pipe => commands.push(Command { function: None, arguments: Vec::new() }),
                Token::Open => {
                    let nested = Self::parse_tokens(tokens)?;
                    let path = match tokens.next() {
                        Some(Token::Close(path)) => names(&path),
                        _ => bail!("a parenthesis is not closed"),
                    };
                    command.arguments.push(Operand::Nested(nested, path));
                }
                Token::Text(text) => command.arguments.push(Operand::Literal(Value::String(text))),
                Token::Word(word) => {
                    let first = command.function.is_none() && command.arguments.is_empty();
                    match Operand::parse(&word) {
                        Some(operand) => command.arguments.push(operand),
                        None if first => command.function = Some(Function::parse(&word)?),
                        None => bail!("{word:?} is no value"),
                    }
                }
                Token::Close(_) => {}
            }
        }
        if commands.iter().any(|command| command.function.is_none() && command.arguments.is_empty()) {
            bail!("an empty action");
        }
        Ok(Self(commands))
    }

    pub(super) fn evaluate(&self, dot: &Value, root: &Value) -> Result<Value> {
        let mut result = None;
        for command in &self.0 {
            let values = command.arguments.iter().map(|operand| operand.evaluate(dot, root));
            let mut values = values.collect::<Result<Vec<_>>>()?;
            values.extend(result.take());
            result = Some(match command.function {
                Some(function) => function.apply(&values)?,
                None if values.len() == 1 => values.remove(0),
                None => bail!("a value is no function: it takes no arguments"),
            });
        }
        result.context("an empty action")
    }
}

impl Operand {
    fn parse(word: &str) -> Option<Self> {
        let (from_root, path) = match word.strip_prefix('$') {
            Some(path) => (true, path),
            None => (false, word),
        };
        if from_root && path.is_empty() {
            return Some(Self::Field { from_root, path: Vec::new() });
        }
        if let Some(path) = path.strip_prefix('.') {
            return Some(Self::Field { from_root, path: names(path) });
        }
        match word {
            "true" | "false" => Some(Self::Literal(Value::Bool(word == "true"))),
            "nil" => Some(Self::Literal(Value::Null)),
            _ => word.parse::<i64>().ok().map(|number| Self::Literal(number.into())),
        }
    }

    fn evaluate(&self, dot: &Value, root: &Value) -> Result<Value> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Nested(pipeline, path) => field(&pipeline.evaluate(dot, root)?, path),
            Self::Field { from_root, path } => field(if *from_root { root } else { dot }, path),
        }
    }
}

/// `A.B` of `.A.B`.
fn names(path: &str) -> Vec<String> {
    path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn field(value: &Value, path: &[String]) -> Result<Value> {
    let mut value = value;
    for name in path {
        value = value.get(name).with_context(|| format!("there is no field {name:?} here"))?;
    }
    Ok(value.clone())
}

impl Function {
    fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "json" => Self::Json,
            "index" => Self::Index,
            "join" => Self::Join,
            "split" => Self::Split,
            "upper" => Self::Upper,
            "lower" => Self::Lower,
            "title" => Self::Title,
            "len" => Self::Len,
            "println" => Self::Println,
            _ => bail!(
                "{name:?} is no function of templates; there are json, index, join, split, upper, lower, title, len, println"
            ),
        })
    }

    fn apply(self, arguments: &[Value]) -> Result<Value> {
        match (self, arguments) {
            (Self::Json, [value]) => Ok(Value::String(serde_json::to_string(value)?)),
            (Self::Index, [value, keys @ ..]) => index(value, keys),
            (Self::Join, [Value::Array(items), Value::String(separator)]) => {
                let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                Ok(Value::String(items.join(separator)))
            }
            (Self::Join, [Value::Null, _]) => Ok(Value::String(String::new())),
            (Self::Split, [Value::String(text), Value::String(separator)]) => {
                Ok(text.split(separator.as_str()).map(str::to_owned).map(Value::String).collect())
            }
            (Self::Upper, [Value::String(text)]) => Ok(Value::String(text.to_uppercase())),
            (Self::Lower, [Value::String(text)]) => Ok(Value::String(text.to_lowercase())),
            (Self::Title, [Value::String(text)]) => {
                let mut letters = text.chars();
                let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
                Ok(Value::String(first + letters.as_str()))
            }
            (Self::Len, [value]) => Ok(match value {
                Value::String(text) => text.len().into(),
                Value::Array(items) => items.len().into(),
                Value::Object(fields) => fields.len().into(),
                _ => 0.into(),
            }),
            (Self::Println, values) => {
                let mut out = String::new();
                for (position, value) in values.iter().enumerate() {
                    if position > 0 {
                        out.push(' ');
                    }
                    super::show(value, &mut out);
                }
                out.push('\n');
                Ok(Value::String(out))
            }
            (function, _) => bail!("{function:?} does not take these arguments"),
        }
    }
}

fn index(value: &Value, keys: &[Value]) -> Result<Value> {
    let mut value = value;
    for key in keys {
        value = match (value, key) {
            (Value::Array(items), Value::Number(number)) => {
                let position = number.as_u64().and_then(|number| usize::try_from(number).ok());
                let item = position.and_then(|position| items.get(position));
                item.with_context(|| format!("index {number} is out of range: there are {}", items.len()))?
            }
            // A key that a map does not have has the empty value.
            (Value::Object(fields), Value::String(key)) => match fields.get(key) {
                Some(value) => value,
                None => return Ok(Value::String(String::new())),
            },
            (Value::Null, _) => return Ok(Value::String(String::new())),
            _ => bail!("index does not take these arguments"),
        };
    }
    Ok(value.clone())
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    /// With the fields that follow it without a space.
    Close(String),
    Pipe,
}

fn tokenize(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '(' => tokens.push(Token::Open),
            ')' => {
                let mut path = String::new();
                while letters.peek() == Some(&'.') || !path.is_empty() {
                    match letters.next_if(|next| !next.is_whitespace() && !"()|\"`".contains(*next)) {
                        Some(next) => path.push(next),
                        None => break,
                    }
                }
                tokens.push(Token::Close(path));
            }
            '|' => tokens.push(Token::Pipe),
            '"' | '`' => tokens.push(Token::Text(quoted(&mut letters, letter)?)),
            letter if letter.is_whitespace() => {}
            letter => {
                let mut word = String::from(letter);
                while let Some(next) = letters.next_if(|next| !next.is_whitespace() && !"()|\"`".contains(*next)) {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

fn quoted(letters: &mut std::iter::Peekable<std::str::Chars<'_>>, quote: char) -> Result<String> {
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            letter if letter == quote => return Ok(text),
            '\\' if quote == '"' => match letters.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(other) => text.push(other),
                None => {}
            },
            letter => text.push(letter),
        }
    }
    bail!("a quote is not closed")
}
