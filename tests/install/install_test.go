// Package install takes what a stranger takes: the Go SDK from a module proxy, the JavaScript SDK from its package, a copy of the repository under
// another name. Nothing here sees the workspace.
package install

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
	"parley.example/client"
	"parley.example/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const root = "../.."

// hang ends a program that would never end.
const hang = 5 * time.Minute

// run runs a program and gives what it prints; fails reports that it ended with a status.
func run(t *testing.T, dir string, env []string, args ...string) (out string, fails bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	b, err := cmd.CombinedOutput()
	if _, status := err.(*exec.ExitError); err != nil && (!status || ctx.Err() != nil) {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, b)
	}
	return string(b), err != nil
}

// must is run for programs that do not fail.
func must(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	out, fails := run(t, dir, env, args...)
	if fails {
		t.Fatalf("%s failed:\n%s", strings.Join(args, " "), out)
	}
	return out
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// modulePath is what go.mod in a folder says.
func modulePath(t *testing.T, dir string) string {
	t.Helper()
	first, _, _ := strings.Cut(read(t, filepath.Join(dir, "go.mod")), "\n")
	path, ok := strings.CutPrefix(first, "module ")
	if !ok {
		t.Fatalf("%s/go.mod begins with %q", dir, first)
	}
	return path
}

// publish writes the Go SDK as a module proxy serves it, and gives the proxy's URL.
func publish(t *testing.T, version string) string {
	t.Helper()
	path := modulePath(t, root+"/client")
	proxy := t.TempDir()
	dir := filepath.Join(proxy, path, "@v")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "list"), version+"\n")
	write(t, filepath.Join(dir, version+".info"), `{"Version":"`+version+`"}`)
	write(t, filepath.Join(dir, version+".mod"), read(t, root+"/client/go.mod"))
	f, err := os.Create(filepath.Join(dir, version+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	if err := zip.CreateFromDir(f, module.Version{Path: path, Version: version}, root+"/client"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return "file://" + proxy
}

// The Go program of the README stands in a folder of its own, requires the SDK from a proxy and chats; only the address is another one.
func TestInstallGoProgram(t *testing.T) {
	_, rest, found := strings.Cut(read(t, root+"/README.md"), "\n```go\n")
	program, _, closed := strings.Cut(rest, "\n```\n")
	const address = "http://127.0.0.1:8080"
	if !found || !closed || strings.Count(program, address) != 1 {
		t.Fatalf("README.md has no Go program that talks to %s", address)
	}
	server := harness.Start(t, "parley serve", "parley", nil, "serve", "--demo", "--http", "127.0.0.1:0", "--data", t.TempDir())
	url := server.LogMatch(t, regexp.MustCompile(`(?m)^ready (http://\S+)$`))
	dir := t.TempDir()
	write(t, filepath.Join(dir, "main.go"), strings.Replace(program, address, url, 1))

	downloads := strings.TrimSpace(must(t, root, nil, "go", "env", "GOMODCACHE")) // what the workspace has loaded, as a proxy
	env := []string{
		"GOWORK=off", "GOPROXY=" + publish(t, "v0.1.0") + ",file://" + downloads + "/cache/download", "GOSUMDB=off",
		"GOMODCACHE=" + t.TempDir(), "GOFLAGS=-modcacherw",
	}
	sdk := modulePath(t, root+"/client")
	must(t, dir, env, "go", "mod", "init", "stranger.example/hello")
	must(t, dir, env, "go", "get", sdk+"@v0.1.0")
	must(t, dir, env, "go", "mod", "tidy")
	must(t, dir, env, "go", "build", "-o", "hello", ".")
	want := "stranger.example/hello\ngithub.com/gorilla/websocket\n" + sdk + "\n"
	if got := must(t, dir, env, "go", "list", "-m", "-f", "{{.Path}}", "all"); got != want {
		t.Errorf("the program's modules are\n%s, not\n%s", got, want)
	}

	// It says hello to Avi and ends with his answer.
	ctx, cancel := context.WithTimeout(t.Context(), hang)
	defer cancel()
	api, err := client.New(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	me, err := api.Login(ctx, "Avi", "MoreMoreMore")
	if err != nil {
		t.Fatal(err)
	}
	avi, err := client.Dial(ctx, client.Options{Session: me})
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for ev := range avi.Events() {
			if m, ok := ev.(client.Message); ok && m.Content == "hello from Go" {
				_, _ = avi.Send(ctx, m.Room, "hello yourself") // the program shows whether it came
			}
		}
	}()
	defer func() {
		avi.Close()
		<-answered
	}()
	if out := must(t, dir, []string{"PARLEY_PASSWORD=TestMe"}, "./hello"); !strings.Contains(out, "Avi: hello yourself") {
		t.Errorf("it printed\n%s", out)
	}
}

// The package of the JavaScript SDK is enough for a strict TypeScript program, and its types are checked.
func TestInstallTypeScriptProgram(t *testing.T) {
	const modules = root + "/tests/browser/node_modules/"
	if _, err := os.Stat(modules); err != nil {
		t.Fatal("tests/browser/node_modules is missing: run make test-deps")
	}
	tools, err := filepath.Abs(modules)
	if err != nil {
		t.Fatal(err)
	}
	// npm packs where the package lies, and leaves the types there: not in the tree that other tests read.
	dir, packed := t.TempDir(), t.TempDir()
	if err := os.CopyFS(filepath.Join(packed, "client/js"), os.DirFS(root+"/client/js")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(packed, "LICENSE"), read(t, root+"/LICENSE"))
	if err := os.MkdirAll(filepath.Join(packed, "tests/browser"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(tools, filepath.Join(packed, "tests/browser/node_modules")); err != nil {
		t.Fatal(err)
	}
	npm := []string{"PATH=" + tools + "/.bin:" + os.Getenv("PATH")}
	tarball := strings.TrimSpace(must(t, filepath.Join(packed, "client/js"), npm, "npm", "pack", "--silent", "--pack-destination", dir))

	write(t, filepath.Join(dir, "package.json"), `{"name": "stranger", "private": true, "type": "module"}`)
	must(t, dir, npm, "npm", "install", "--offline", "--ignore-scripts", "--no-audit", "--no-fund", "./"+tarball)
	// What npm would fetch for a program with React: its types, and what these need.
	for _, name := range []string{"@types/react", "csstype"} {
		if err := os.CopyFS(filepath.Join(dir, "node_modules", name), os.DirFS(modules+name)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "tsconfig.json"), `{"compilerOptions": {
		"strict": true, "exactOptionalPropertyTypes": true, "noUncheckedIndexedAccess": true, "skipLibCheck": false, "noEmit": true, "jsx": "react-jsx",
		"target": "es2022", "lib": ["es2022", "dom", "dom.iterable"], "module": "nodenext", "moduleResolution": "nodenext", "types": []
	}, "files": ["main.ts", "plain.ts", "react.tsx"]}`)
	write(t, filepath.Join(dir, "plain.ts"), read(t, root+"/client/js/examples/chat.ts"))
	write(t, filepath.Join(dir, "react.tsx"), read(t, root+"/client/js/examples/react.tsx"))
	main := `import { chat } from "./plain.js";
import { Parley, type Accepted, type Conversation, type Tokens } from "parley-client";
await chat("http://127.0.0.1:8080", "Lisa", "TestMe");
const session = new Parley("http://127.0.0.1:8080").session({ access_token: "t" } satisfies Tokens);
const accepted: Accepted = await session.connect({ device: "laptop" }).send("Avi&Lisa", "hi");
const { conversations }: { conversations: Conversation[] } = await session.conversations();
for await (const m of session.history("Avi&Lisa")) console.log(m.content, accepted.seq, conversations.length);
`
	write(t, filepath.Join(dir, "main.ts"), main)
	if out, fails := run(t, dir, npm, tools+"/.bin/tsc", "-p", "."); fails {
		t.Fatalf("tsc:\n%s", out)
	}
	// What the SDK does not have is an error, each where it stands.
	wrong := []struct{ line, want string }{
		{"console.log(accepted.sequence);", "Property 'sequence' does not exist"},
		{"session.connect({ devise: 'laptop' });", "'devise' does not exist in type"},
		{"session.connect().on('message', (m) => m.seq.toUpperCase());", "Property 'toUpperCase' does not exist on type 'number'"},
		{"session.connect().on('massage', () => {});", `"massage"`},
		{"const s: string = (await session.connect().next('typing')).on;", "Property 'on' does not exist"},
	}
	line := strings.Count(main, "\n")
	for _, w := range wrong {
		main += w.line + "\n"
	}
	write(t, filepath.Join(dir, "main.ts"), main)
	out, fails := run(t, dir, npm, tools+"/.bin/tsc", "-p", ".", "--pretty", "false")
	if !fails || strings.Count(out, ": error TS") != len(wrong) {
		t.Errorf("tsc failed: %t, and said\n%s", fails, out)
	}
	for i, w := range wrong {
		at := fmt.Sprintf("main.ts(%d,", line+i+1)
		if _, said, found := strings.Cut(out, at); !found || !strings.Contains(strings.SplitN(said, "main.ts(", 2)[0], w.want) {
			t.Errorf("%s: tsc said\n%s", w.line, out)
		}
	}
	// And it runs: what a bundler or Node loads is there.
	write(t, filepath.Join(dir, "main.js"), `import * as sdk from "parley-client"; console.log(sdk.roomOf("Lisa", "Avi"));`)
	if out := must(t, dir, nil, "node", "main.js"); out != "Avi&Lisa\n" {
		t.Errorf("node said %q", out)
	}
}

// A copy under another name builds, and is the same as before when it gets its name back.
func TestInstallModulePath(t *testing.T) {
	from := strings.TrimSuffix(modulePath(t, root+"/client"), "/client")
	dir := t.TempDir()
	tree := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || rel == "bin" || rel == "data" || rel == "tmp"):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(dir, rel), 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		tree[rel] = string(b)
		return os.WriteFile(filepath.Join(dir, rel), b, info.Mode())
	})
	if err != nil {
		t.Fatal(err)
	}

	same := func(when string) {
		t.Helper()
		for rel, was := range tree {
			if read(t, filepath.Join(dir, rel)) != was {
				t.Errorf("%s: %s is not what it was", when, rel)
			}
		}
	}
	for _, wrong := range []string{"", "parley", "github.com/", "github.com/a b", "https://github.com/a/b", "../elsewhere"} {
		if out, fails := run(t, dir, nil, "make", "module-path", "TO="+wrong); !fails || !strings.Contains(out, "TO=github.com/you/parley") {
			t.Errorf("TO=%q: failed: %t, and said\n%s", wrong, fails, out)
		}
	}
	same("after names that are none")

	const to = "git.stranger.example/team/chat"
	must(t, dir, nil, "make", "module-path", "TO="+to)
	for rel := range tree {
		if strings.HasSuffix(rel, ".go") || filepath.Base(rel) == "go.mod" || rel == "README.md" {
			if now := read(t, filepath.Join(dir, rel)); strings.Contains(now, from+"/client") || strings.Contains(now, from+"/pkg") {
				t.Errorf("%s still has the old name", rel)
			}
		}
	}
	must(t, dir, nil, "go", "vet", "./client/...", "./pkg/...")
	must(t, dir, nil, "go", "build", "-o", "bin/", "./cmd/parley")
	if out := must(t, dir, nil, "bin/parley", "--help"); !strings.Contains(out, "serve") {
		t.Errorf("bin/parley --help says\n%s", out)
	}
	must(t, dir, nil, "make", "module-path", "TO="+from)
	same("after it got its name back")
}
