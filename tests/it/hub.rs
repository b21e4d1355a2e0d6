//! Hubs on loopback: Debian's docker-registry and nginx, each a process that ends with its value.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use tempfile::TempDir;

use crate::stack::{PATIENCE, http_client, model_file};

/// A program that `scripts/setup.sh test` has put under target/tools, or that the machine has.
pub fn tool(name: &str) -> PathBuf {
    let target = std::env::current_exe().unwrap();
    let places = target.ancestors().map(|above| above.join("tools/usr"));
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/usr");
    places
        .chain([repository, PathBuf::from("/usr")])
        .flat_map(|root| [root.join("bin").join(name), root.join("sbin").join(name)])
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is missing; run: scripts/setup.sh test"))
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A process that is killed with its value.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command, port: u16) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                child.try_wait().unwrap().is_none() && Instant::now() < end,
                "{command:?} does not listen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(child)
    }
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// nginx with files and rules of a test's own.
pub struct Nginx {
    pub port: u16,
    root: TempDir,
    process: Process,
}

impl Nginx {
    /// Serves the folder `files` of its root; `server` is what stands in the server's block beside that.
    pub fn start(server: &str) -> Self {
        Self::start_with("", server)
    }

    /// The same with rules beside the server's block.
    pub fn start_with(rules: &str, server: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let port = free_port();
        let at = root.path().display();
        fs::create_dir(root.path().join("files")).unwrap();
        let server = server.replace("$PORT", &port.to_string());
        let config = format!(
            "daemon off; master_process off; worker_processes 1; error_log {at}/error.log; pid {at}/pid;\n\
             events {{ worker_connections 256; }}\n\
             http {{ log_format bytes '$request_method $uri $status $body_bytes_sent'; access_log {at}/access.log bytes;\n\
             client_body_temp_path {at}/t1; proxy_temp_path {at}/t2; fastcgi_temp_path {at}/t3;\n\
             uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5; sendfile on; output_buffers 1 64k;\n{rules}\n\
             server {{ listen 127.0.0.1:{port}; root {at}/files; default_type application/octet-stream;\n{server} }} }}\n"
        );
        put(root.path().join("nginx.conf"), config);
        let process = Self::serve(root.path(), port);
        Self { port, root, process }
    }

    fn serve(root: &Path, port: u16) -> Process {
        let mut command = Command::new(tool("nginx"));
        command.arg("-p").arg(root).arg("-c").arg(root.join("nginx.conf"));
        Process::start(command.arg("-e").arg(root.join("error.log")), port)
    }

    /// Kills it, connections and all, and starts it again.
    pub fn restart(&mut self) {
        self.process.end();
        self.process = Self::serve(self.root.path(), self.port);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Where a file lies that is served as `path`; its folders are made.
    pub fn file(&self, path: &str) -> PathBuf {
        let path = self.root.path().join("files").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Puts a repository of Hugging Face there, with these GGUF files.
    pub fn repository(&self, name: &str, files: &[(&str, &Path)]) {
        let sibling = |(file, source): &(&str, &Path)| {
            fs::copy(source, self.file(&format!("{name}/resolve/c0ffee/{file}"))).unwrap();
            let size = fs::metadata(source).unwrap().len();
            json!({"rfilename": file, "size": size, "lfs": {"sha256": sha256(source), "size": size}})
        };
        let siblings: Vec<_> = files.iter().map(sibling).collect();
        let answer = json!({"id": name, "sha": "c0ffee", "siblings": siblings});
        put(self.file(&format!("api/models/{name}/revision/main")), answer.to_string());
    }

    /// How many answers had this status.
    pub fn answered(&self, status: u16) -> usize {
        let log = fs::read_to_string(self.root.path().join("access.log")).unwrap_or_default();
        let status = status.to_string();
        log.lines().filter(|line| line.split(' ').nth_back(1) == Some(&status)).count()
    }

    /// Bytes of bodies that were sent for paths that contain `part`.
    pub fn sent_bytes(&self, part: &str) -> u64 {
        let log = fs::read_to_string(self.root.path().join("access.log")).unwrap_or_default();
        let of =
            |line: &str| line.contains(part).then(|| line.rsplit(' ').next()?.parse::<u64>().ok()).flatten();
        log.lines().filter_map(of).sum()
    }
}

/// Debian's registry, with the test model in it.
pub struct Registry {
    pub port: u16,
    http: reqwest::Client,
    _root: TempDir,
    _process: Process,
}

impl Registry {
    pub fn start() -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), "")
    }

    /// A registry that wants a token of this server for everything.
    pub fn with_tokens(tokens: &TokenServer) -> Self {
        let auth = format!(
            "auth: {{token: {{realm: '{}token', service: firepot, issuer: firepot, rootcertbundle: '{}'}}}}\n",
            tokens.url(),
            tokens.keys.path().join("cert.pem").display()
        );
        Self::start_with(tempfile::tempdir().unwrap(), &auth)
    }

    fn start_with(root: TempDir, auth: &str) -> Self {
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n{auth}",
            root.path().display()
        );
        let path = root.path().join("config.yml");
        put(&path, config);
        let process = Process::start(Command::new(tool("docker-registry")).arg("serve").arg(&path), port);
        Self { port, http: http_client(), _root: root, _process: process }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// The same, asking with a token from now on.
    pub fn authorized(mut self, token: &str) -> Self {
        let value = format!("Bearer {token}").parse().unwrap();
        let headers = [(reqwest::header::AUTHORIZATION, value)].into_iter().collect();
        self.http = reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap();
        self
    }

    /// Pushes the real model under a name, with a system prompt and parameters as Ollama's library has them.
    pub async fn push_model(&self, repository: &str, tag: &str) {
        let parts: [(&str, Vec<u8>); 4] = [
            ("ollama.image.model", fs::read(model_file()).unwrap()),
            ("ollama.image.system", b"Answer in one word.".to_vec()),
            ("ollama.image.params", br#"{"temperature":0,"stop":["<|im_end|>"],"num_predict":12}"#.to_vec()),
            ("ollama.image.license", b"Apache-2.0".to_vec()),
        ];
        let mut layers = Vec::new();
        for (kind, bytes) in parts {
            let media_type = format!("application/vnd.{kind}");
            let (digest, size) = self.push_blob(repository, bytes).await;
            layers.push(json!({"mediaType": media_type, "digest": digest, "size": size}));
        }
        let config = br#"{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"134.52M","file_type":"Q4_1"}"#;
        let (digest, size) = self.push_blob(repository, config.to_vec()).await;
        let media_type = "application/vnd.docker.distribution.manifest.v2+json";
        let config = json!({"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest, "size": size});
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers})
                .to_string();
        let url = format!("{}v2/{repository}/manifests/{tag}", self.url());
        let pushed =
            self.http.put(url).header("content-type", media_type).body(manifest).send().await.unwrap();
        assert_eq!(pushed.status(), 201, "{}", pushed.text().await.unwrap());
    }

    async fn push_blob(&self, repository: &str, bytes: Vec<u8>) -> (String, usize) {
        let begun =
            self.http.post(format!("{}v2/{repository}/blobs/uploads/", self.url())).send().await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let size = bytes.len();
        let file = tempfile::NamedTempFile::new().unwrap();
        put(file.path(), &bytes);
        let digest = format!("sha256:{}", sha256(file.path()));
        let url = format!("{location}&digest={digest}");
        let pushed = self.http.put(url).body(bytes).send().await.unwrap();
        assert_eq!(pushed.status(), 201);
        (digest, size)
    }
}

/// Gives tokens to pull from a [`Registry`], signed by openssl, to whoever asks; ends with the test's process.
pub struct TokenServer {
    port: u16,
    keys: TempDir,
    /// How many it gave.
    pub given: Arc<AtomicUsize>,
}

impl TokenServer {
    /// `refuses`: it answers 403 to everybody.
    pub fn start(refuses: bool) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let at = |name: &str| keys.path().join(name).display().to_string();
        let (key, cert) = (at("key.pem"), at("cert.pem"));
        let request = [
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=firepot",
            "-keyout",
            &key,
            "-out",
            &cert,
        ];
        openssl(&request, b"");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), keys, given: Arc::default() };
        let (given, folder) = (Arc::clone(&server.given), server.keys.path().to_owned());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let repository =
                    line.split("repository%3A").nth(1).and_then(|scope| scope.split("%3A").next());
                let repository = repository.unwrap_or_default().replace("%2F", "/");
                let (status, body) = if refuses {
                    ("403 Forbidden", String::new())
                } else {
                    given.fetch_add(1, Ordering::SeqCst);
                    ("200 OK", json!({"token": signed(&folder, &repository, &["pull"])}).to_string())
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// A token for whoever fills the registry.
    pub fn push_token(&self, repository: &str) -> String {
        signed(self.keys.path(), repository, &["pull", "push"])
    }
}

/// A JSON Web Token as the registry wants it: RS256, with the certificate in its header.
fn signed(keys: &Path, repository: &str, actions: &[&str]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let certificate = fs::read_to_string(keys.join("cert.pem")).unwrap();
    let certificate: String = certificate.lines().filter(|line| !line.starts_with('-')).collect();
    let header = json!({"alg": "RS256", "typ": "JWT", "x5c": [certificate]});
    let access = json!([{"type": "repository", "name": repository, "actions": actions}]);
    let claims = json!({"iss": "firepot", "sub": "", "aud": "firepot", "exp": now + 300, "nbf": now - 10, "iat": now, "jti": "1", "access": access});
    let text = format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
    let key = keys.join("key.pem");
    let signature = openssl(&["dgst", "-sha256", "-sign", key.to_str().unwrap()], text.as_bytes());
    format!("{text}.{}", base64(&signature))
}

/// In the alphabet of URLs and without padding.
fn base64(bytes: &[u8]) -> String {
    let text = String::from_utf8(openssl(&["base64", "-A"], bytes)).unwrap();
    text.trim_end_matches('=').replace('+', "-").replace('/', "_")
}

fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args:?}");
    output.stdout
}

/// By coreutils, so that it is not our own.
pub fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "a file that a test serves need not survive a crash")]
pub fn put(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    fs::write(path, bytes).unwrap();
}
