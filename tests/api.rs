//! The public face as one listing, `docs/api.txt`, so that no change to it goes unseen.
//!
//! It is read from the source: what `src/lib.rs` and its public modules re-export or define, and of that every public field,
//! variant, method and trait implementation, by module. What is `#[doc(hidden)]` is left out. When the face has changed as it should:
//!
//! ```sh
//! WATERWAY_UPDATE_API=1 cargo test --test api
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

#[test]
fn the_face_is_as_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = listing(&root.join("src"));
    // It has read what it should.
    for line in [
        "pub fn recv(&self) -> impl Future<Output = Option<Message<T>>>",
        "impl<T: Payload + ?Sized> Clone for Receiver<T>",
    ] {
        assert!(found.contains(line), "{line}\n{found}");
    }
    assert!(!found.contains("pub(crate)") && !found.contains("pub(super)"), "{found}");

    let listed_in = root.join("docs/api.txt");
    if std::env::var_os("WATERWAY_UPDATE_API").is_some() {
        fs::write(&listed_in, &found).unwrap();
        return;
    }
    let listed = fs::read_to_string(&listed_in).unwrap_or_default();
    if listed != found {
        let (was, is): (BTreeSet<_>, BTreeSet<_>) = (listed.lines().collect(), found.lines().collect());
        was.difference(&is).for_each(|line| eprintln!("-{line}"));
        is.difference(&was).for_each(|line| eprintln!("+{line}"));
        panic!("the face is not as docs/api.txt says; if it should be: WATERWAY_UPDATE_API=1 cargo test --test api");
    }
}

// ---- What is listed ----

/// Something public: what it is, and what it has.
#[derive(Default)]
struct Entry {
    definition: Vec<String>,
    /// By what stands before the braces of their implementation.
    methods: BTreeMap<String, BTreeSet<String>>,
    implementations: BTreeSet<String>,
}

fn listing(src: &Path) -> String {
    let files: Vec<(PathBuf, Vec<Item>)> = sources(src)
        .into_iter()
        .map(|path| {
            let items = items(&tokens(&fs::read_to_string(&path).unwrap()));
            (path.strip_prefix(src).unwrap().to_owned(), items)
        })
        .collect();
    let face = face(&files);
    // Traits that nobody outside can name: that they are implemented is nobody's business.
    let mut private_traits = BTreeSet::new();
    visit(&files, &mut |_, item| {
        if item.word(0) == "trait" && !face.items.keys().any(|(_, name)| name == item.word(1)) {
            private_traits.insert(item.word(1).to_owned());
        }
    });

    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for (path, condition) in face.items.values() {
        entries.entry(path.clone()).or_default().definition.extend(condition.clone());
    }
    visit(&files, &mut |root, item| match item.word(0) {
        "struct" | "enum" | "trait" | "const" | "type" | "fn" | "union" if item.public => {
            if let Some((path, _)) = face.items.get(&(root.to_owned(), item.word(1).to_owned())) {
                entries.get_mut(path).unwrap().definition.extend(item.define());
            }
        }
        "impl" => {
            let (of, on) = item.implements();
            let methods = item.body.iter().flat_map(|body| items(body)).filter(|method| method.public);
            let methods = methods.map(|method| format!("pub {}", join(&method.header))).collect::<Vec<_>>();
            // In a layer that has something of the face.
            let in_macro = on.starts_with('$') && face.items.keys().any(|(module, _)| module == root);
            match of {
                // `unreachable_pub` sees to it that what is `pub` in a type of another layer is so for the user.
                None if !methods.is_empty() => {
                    let place = if in_macro { item.macro_name.clone() } else { face.place(root, &on) };
                    let entry = entries.entry(place).or_default();
                    entry.methods.entry(join(&item.header)).or_default().extend(methods);
                }
                Some(of) if !private_traits.contains(&of) => {
                    let here = |name: &str| face.items.get(&(root.to_owned(), name.to_owned()));
                    let place = match (here(&on), here(&of)) {
                        _ if in_macro => item.macro_name.clone(),
                        (Some((path, _)), _) | (None, Some((path, _))) => path.clone(),
                        (None, None) => return,
                    };
                    entries.entry(place).or_default().implementations.insert(join(&item.header));
                }
                _ => {}
            }
        }
        // What a macro makes methods for.
        name if item.header.get(1).is_some_and(|bang| bang == "!") && item.header.len() > 3 => {
            let path = face.items.get(&(root.to_owned(), name.to_owned())).map_or(name, |(path, _)| path);
            if let Some(entry) = entries.get_mut(path) {
                entry.definition.push(join(&item.header));
            }
        }
        _ => {}
    });

    for ((module, name), (path, _)) in &face.items {
        let entry = &entries[path];
        assert!(
            entry.definition.iter().any(|line| line.contains(name)),
            "no definition of {module}::…::{name} was found, which is {path}"
        );
    }

    let mut out = String::from(
        "# The public face, read from src by tests/api.rs. Do not edit: WATERWAY_UPDATE_API=1 cargo test --test api\n",
    );
    out.push_str("\n# What stands in several places, by the first.\n");
    for (module, names) in &face.modules {
        out.push_str(&format!("{module}: {}\n", names.iter().cloned().collect::<Vec<_>>().join(", ")));
    }
    for (path, entry) in &entries {
        if entry.definition.is_empty() && entry.methods.is_empty() {
            continue;
        }
        out.push_str(&format!("\n# {path}\n"));
        for line in &entry.definition {
            out.push_str(&format!("{line}\n"));
        }
        for (head, methods) in &entry.methods {
            out.push_str(&format!("    {head}\n"));
            methods.iter().for_each(|method| out.push_str(&format!("        {method}\n")));
        }
        for line in &entry.implementations {
            out.push_str(&format!("    {line}\n"));
        }
    }
    out
}

/// All source files but those of tests, in order.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Calls `look` with every item, and the first part of the path of the module that it stands in.
fn visit(files: &[(PathBuf, Vec<Item>)], look: &mut dyn FnMut(&str, &Item)) {
    for (path, items) in files {
        let root = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        for item in items {
            item.visit(&mut |item| look(root, item));
        }
    }
}

/// What a user can name.
struct Face {
    /// By the first part of the path of the module that defines it and its name there: the path by which it is listed, and the
    /// condition under which it is there.
    items: BTreeMap<(String, String), (String, Option<String>)>,
    /// What each module of the face has; the root is `crate`.
    modules: BTreeMap<String, BTreeSet<String>>,
}

impl Face {
    /// By which path the methods of a type are listed. Another layer than its own names it by a path, or has imported it.
    fn place(&self, root: &str, on: &str) -> String {
        let (module, name) = on.rsplit_once("::").unwrap_or((root, on));
        let module = module.rsplit("::").next().unwrap();
        let own = self.items.get(&(module.to_owned(), name.to_owned()));
        let mut others = self.items.iter().filter(|((_, other), _)| other == name).map(|(_, found)| found);
        match (own.or_else(|| others.next()), others.next()) {
            (Some((path, _)), _) if own.is_some() => path.clone(),
            (Some((path, _)), None) => path.clone(),
            (None, _) => name.to_owned(),
            (Some(_), Some(_)) => {
                panic!("src/{root}… implements methods of one of several `{name}`: write `module::{name}`")
            }
        }
    }
}

/// Reads `src/lib.rs` and the public modules that it has.
fn face(files: &[(PathBuf, Vec<Item>)]) -> Face {
    let of = |path: &str| files.iter().find(|(at, _)| at == Path::new(path)).map(|(_, items)| items);
    let lib = of("lib.rs").unwrap();
    let mut face = Face { items: BTreeMap::new(), modules: BTreeMap::new() };
    // What the root has is listed there, wherever else it stands.
    let mut modules = vec![("crate".to_owned(), lib)];
    for item in lib.iter().filter(|item| item.public && item.word(0) == "mod") {
        let name = item.word(1);
        let items = of(&format!("{name}.rs")).or_else(|| of(&format!("{name}/mod.rs"))).expect(name);
        modules.push((name.to_owned(), items));
    }
    // `error` has what stands beside what returns it.
    modules.sort_by_key(|(name, _)| (name != "crate", name == "error"));
    for (module, items) in modules {
        let names = face.modules.entry(module.clone()).or_default();
        for item in items.iter().filter(|item| item.public) {
            let condition = item.attributes.iter().find(|attribute| attribute.contains("feature"));
            let prefix = if module == "crate" { String::new() } else { format!("{module}::") };
            match item.word(0) {
                "use" => {
                    for (mut path, alias) in leaves(&item.header[1..], &item.body) {
                        // Of another layer, if the path says so.
                        let is_own = module != "crate" && path[0] != "crate";
                        if ["crate", "self"].contains(&path[0].as_str()) {
                            path.remove(0);
                        }
                        let name = path.last().unwrap().clone();
                        assert!(name != "*", "this listing knows `pub use` of names only");
                        let alias = alias.unwrap_or_else(|| name.clone());
                        names.insert(alias.clone());
                        // A crate; or a macro of the crate of macros, whose documentation says what it takes.
                        if path.len() == 1 && module == "crate" || path[0] == "waterway_derive" {
                            continue;
                        }
                        let root = if is_own { module.clone() } else { path[0].clone() };
                        face.items.entry((root, name)).or_insert((format!("{prefix}{alias}"), condition.cloned()));
                    }
                }
                "struct" | "enum" | "trait" | "const" | "type" | "fn" | "union" => {
                    names.insert(item.word(1).to_owned());
                    let path = format!("{prefix}{}", item.word(1));
                    face.items.entry((module.clone(), item.word(1).to_owned())).or_insert((path, condition.cloned()));
                }
                _ => {}
            }
        }
    }
    face
}

/// The paths of a `use`, with the names that they are given.
fn leaves(header: &[String], body: &Option<Vec<String>>) -> Vec<(Vec<String>, Option<String>)> {
    let prefix: Vec<String> = header.iter().filter(|token| *token != "::").cloned().collect();
    let Some(body) = body else {
        return match &prefix[..] {
            [path @ .., with, alias] if with == "as" => vec![(path.to_vec(), Some(alias.clone()))],
            path => vec![(path.to_vec(), None)],
        };
    };
    let mut found = Vec::new();
    for part in split(body) {
        let open = part.iter().position(|token| token == "{");
        let inner = open.map(|open| part[open + 1..part.len() - 1].to_vec());
        for (rest, alias) in leaves(&part[..open.unwrap_or(part.len())], &inner) {
            found.push(([&prefix[..], &rest[..]].concat(), alias));
        }
    }
    found
}

// ---- Items ----

/// An item of a module, an implementation or a trait: what stands before its braces, and what in them.
struct Item {
    public: bool,
    attributes: Vec<String>,
    header: Vec<String>,
    body: Option<Vec<String>>,
    /// The macro that makes it.
    macro_name: String,
}

impl Item {
    fn word(&self, at: usize) -> &str {
        self.header.get(at).map_or("", String::as_str)
    }

    fn visit(&self, look: &mut dyn FnMut(&Item)) {
        look(self);
        if self.word(0) == "macro_rules" {
            for mut item in self.body.iter().flat_map(|body| items(rule(body))) {
                item.macro_name = self.word(2).to_owned();
                item.visit(look);
            }
        }
        if self.word(0) == "mod" {
            self.body.iter().flat_map(|body| items(body)).for_each(|item| item.visit(look));
        }
    }

    /// Of `impl … Trait for Type` or `impl … Type`, the names.
    fn implements(&self) -> (Option<String>, String) {
        let mut rest = &self.header[1..];
        if rest.first().is_some_and(|token| token == "<") {
            rest = &rest[angles(rest)..];
        }
        let end = rest.iter().position(|token| token == "where").unwrap_or(rest.len());
        rest = &rest[..end];
        match rest.iter().position(|token| token == "for") {
            Some(at) => (Some(name_of(&rest[..at])), name_of(&rest[at + 1..])),
            None => (None, path_of(rest)),
        }
    }

    /// What it is, with what of it is public.
    fn define(&self) -> Vec<String> {
        let told = |attribute: &&String| {
            ["derive", "non_exhaustive", "cfg", "repr"].iter().any(|known| attribute.starts_with(&format!("#[{known}")))
        };
        let mut lines: Vec<String> = self.attributes.iter().filter(told).cloned().collect();
        let mut header = self.header.clone();
        if let ("struct", Some(open)) = (self.word(0), header.iter().position(|token| token == "(")) {
            let fields = split(&header[open + 1..header.len() - 1]).into_iter();
            let fields: Vec<_> =
                fields.map(|field| if field[0] == "pub" { join(&field) } else { "_".into() }).collect();
            header.truncate(open);
            lines.push(format!("{}({})", join(&header), fields.join(", ")));
            return lines;
        }
        lines.push(join(&header));
        for part in self.body.iter().filter(|_| matches!(self.word(0), "struct" | "enum")).flat_map(|body| split(body))
        {
            // Without its attributes.
            let mut part = &part[..];
            while part[0] == "#" {
                part = &part[2 + brackets(&part[1..])..];
            }
            if self.word(0) == "enum" || part[0] == "pub" && part[1] != "(" {
                lines.push(format!("    {},", join(part)));
            }
        }
        for item in self.body.iter().filter(|_| self.word(0) == "trait").flat_map(|body| items(body)) {
            lines.push(format!("    {}{}", join(&item.header), if item.body.is_some() { " { … }" } else { "" }));
        }
        lines
    }
}

/// The items of a module or a body. Leaves out what is hidden, and what is there for tests only.
fn items(mut tokens: &[String]) -> Vec<Item> {
    let mut found = Vec::new();
    while !tokens.is_empty() {
        let mut attributes = Vec::new();
        while tokens.len() > 1 && tokens[0] == "#" {
            let start = if tokens[1] == "!" { 2 } else { 1 };
            let end = start + brackets(&tokens[start..]) + 1;
            if start == 1 {
                attributes.push(join(&tokens[..end]));
            }
            tokens = &tokens[end..];
        }
        // Up to the braces, or the semicolon. A list in `use` has braces, too.
        let (mut at, mut body) = (0, None);
        while at < tokens.len() && tokens[at] != ";" {
            match tokens[at].as_str() {
                "{" => {
                    let end = at + brackets(&tokens[at..]);
                    body = Some(tokens[at + 1..end].to_vec());
                    break;
                }
                "(" | "[" => at += brackets(&tokens[at..]) + 1,
                _ => at += 1,
            }
        }
        let end = at + body.as_ref().map_or(0, |body| body.len() + 1);
        let mut header = &tokens[..at];
        tokens = &tokens[(end + 1).min(tokens.len())..];
        let mut public = false;
        if header.first().is_some_and(|token| token == "pub") {
            let restricted = header.get(1).is_some_and(|token| token == "(");
            public = !restricted;
            header = &header[if restricted { 2 + brackets(&header[1..]) } else { 1 }..];
        }
        if header.len() > 1 && header[0] == "unsafe" && header[1] == "impl" {
            header = &header[1..];
        }
        let left_out = ["#[doc(hidden)]", "#[cfg(test)]", "#[cfg(loom)]", "#[cfg(all(test"];
        if header.is_empty() || attributes.iter().any(|attribute| left_out.iter().any(|out| attribute.starts_with(out)))
        {
            continue;
        }
        // The braces that belong to a value.
        if let (Some(at), "const" | "static") = (header.iter().position(|token| token == "="), header[0].as_str())
            && body.is_some()
        {
            header = &header[..at];
        }
        found.push(Item { public, attributes, header: header.to_vec(), body, macro_name: String::new() });
    }
    found
}

/// What the first rule of a macro makes.
fn rule(body: &[String]) -> &[String] {
    let Some(at) = body.iter().position(|token| token == "=>") else { return &[] };
    let made = &body[at + 2..at + 1 + brackets(&body[at + 1..])];
    // What is made several times is told once.
    if made.len() > 1 && made[0] == "$" && made[1] == "(" { &made[2..1 + brackets(&made[1..])] } else { made }
}

/// The last part of the path of a type or a trait; `&`, `[u8]` and the like as they are.
fn name_of(tokens: &[String]) -> String {
    if tokens[0] == "$" {
        return format!("${}", tokens[1]);
    }
    let end = tokens.iter().position(|token| token == "<").unwrap_or(tokens.len());
    match &tokens[..end] {
        [.., path, name] if path == "::" => name.clone(),
        other => join(other),
    }
}

/// The path of a type as far as it is written, without its arguments.
fn path_of(tokens: &[String]) -> String {
    let end = tokens.iter().position(|token| token == "<").unwrap_or(tokens.len());
    if tokens[0] == "$" || end == 0 { name_of(tokens) } else { join(&tokens[..end]) }
}

/// The parts between commas.
fn split(tokens: &[String]) -> Vec<Vec<String>> {
    let (mut parts, mut angles, mut at) = (vec![Vec::new()], 0, 0);
    while at < tokens.len() {
        let mut end = at + 1;
        match tokens[at].as_str() {
            "(" | "[" | "{" => end = at + brackets(&tokens[at..]) + 1,
            "<" => angles += 1,
            ">" => angles -= 1,
            "," if angles == 0 => parts.push(Vec::new()),
            _ => {}
        }
        if tokens[at] != "," || angles > 0 {
            parts.last_mut().unwrap().extend_from_slice(&tokens[at..end]);
        }
        at = end;
    }
    parts.retain(|part| !part.is_empty());
    parts
}

// ---- Tokens ----

/// Where the bracket that opens at 0 closes.
fn brackets(tokens: &[String]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    panic!("a bracket that does not close: {}", join(&tokens[..tokens.len().min(20)]));
}

/// What comes after the angle bracket that opens at 0.
fn angles(tokens: &[String]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "<" => depth += 1,
            ">" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    panic!("an angle bracket that does not close: {}", join(tokens));
}

/// Words, strings and signs, without comments.
fn tokens(source: &str) -> Vec<String> {
    let chars: Vec<char> = source.chars().collect();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut at, mut found) = (0, Vec::new());
    while at < chars.len() {
        let rest = &chars[at..];
        let starts = |with: &str| with.chars().enumerate().all(|(at, c)| rest.get(at) == Some(&c));
        let until = |end: &str, from: usize| {
            let end: Vec<char> = end.chars().collect();
            from + rest[from..].windows(end.len()).position(|part| part == end).unwrap_or(rest.len() - from - end.len())
                + end.len()
        };
        let len = if rest[0].is_whitespace() {
            at += 1;
            continue;
        } else if starts("//") {
            at += rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
            continue;
        } else if starts("/*") {
            at += until("*/", 2);
            continue;
        } else if starts("r#\"") || starts("br#\"") {
            until("\"#", 4)
        } else if starts("r\"") || starts("br\"") {
            until("\"", 3)
        } else if starts("\"") || starts("b\"") || starts("c\"") {
            let mut end = if rest[0] == '"' { 1 } else { 2 };
            while rest[end] != '"' {
                end += if rest[end] == '\\' { 2 } else { 1 };
            }
            end + 1
        } else if rest[0] == '\'' && (rest[1] == '\\' || rest.get(2) == Some(&'\'')) {
            // A character; else it is a lifetime.
            if rest[1] == '\\' { until("'", 3) } else { 3 }
        } else if rest[0] == '\'' || is_word(rest[0]) {
            1 + rest[1..].iter().take_while(|c| is_word(**c)).count()
        } else if let Some(sign) = ["::", "->", "=>", "..=", "..", "=="].into_iter().find(|sign| starts(sign)) {
            sign.len()
        } else {
            1
        };
        found.push(rest[..len].iter().collect());
        at += len;
    }
    found
}

/// Tokens as one writes them, whatever line they stood on.
fn join(tokens: &[String]) -> String {
    let mut line = String::new();
    let mut last = "";
    // rustfmt ends lists with a comma where it breaks them.
    let tokens = tokens.iter().enumerate().filter(|(at, token)| {
        *token != "," || tokens.get(at + 1).is_some_and(|next| ![")", "]", ">", "}"].contains(&next.as_str()))
    });
    for (_, token) in tokens {
        let closes = [")", "]", ">", ",", ";", ":", "::", ".", "!"].contains(&token.as_str());
        let opens = ["(", "[", "<"].contains(&token.as_str());
        let glued = ["", "(", "[", "<", "&", "!", "#", "::", ".", "$", "?", "*"].contains(&last);
        let apart = ["->", "=", "+", ",", ":", "for", "mut", "where", "=>", "dyn"].contains(&last);
        if opens && apart || !(closes || opens || glued) {
            line.push(' ');
        }
        line.push_str(token);
        last = token;
    }
    line
}
