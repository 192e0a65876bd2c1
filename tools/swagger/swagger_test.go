package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// commitOf commits a description of the API to a clone, and tags it.
func commitOf(t *testing.T, clone, tag, description string) {
	t.Helper()
	path := filepath.Join(clone, swaggerPath)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(description), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"init", "-q"}, {"add", "."}, {"-c", "user.name=nobody", "-c", "user.email=nobody@nowhere", "-c", "commit.gpgsign=false", "commit", "-q", "-m", tag}, {"tag", "-f", tag},
	} {
		if out, err := exec.Command("git", append([]string{"-C", clone}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
	}
}

const described = `
paths:
  /drives/{drive_id}:
    put:
      parameters:
        - {in: path, name: drive_id}
        - {in: body, schema: {$ref: "#/definitions/Drive"}}
      responses:
        204: {description: done}
        400: {schema: {$ref: "#/definitions/Error"}}
  /version:
    get:
      responses:
        200: {schema: {$ref: "#/definitions/Version"}}
definitions:
  Drive:
    type: object
    required: [drive_id]
    properties:
      drive_id: {type: string}
      rate_limiter: {$ref: "#/definitions/RateLimiter"}
      parts: {type: array, items: {$ref: "#/definitions/Part"}}
`

// written makes a clone of two releases and writes what is read out of it.
func written(t *testing.T) (clone, file string) {
	t.Helper()
	clone, file = t.TempDir(), filepath.Join(t.TempDir(), "versions.json")
	commitOf(t, clone, "v1.7.0", described)
	commitOf(t, clone, "v1.8.0", described+"  Error: {properties: {fault_message: {type: string}}}\n")
	if err := run([]string{"write", file, clone, "v1.7.0", "v1.8.0"}); err != nil {
		t.Fatal(err)
	}
	return clone, file
}

func TestRead(t *testing.T) {
	_, file := written(t)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var releases []release
	if err := canonical(text, &releases); err != nil || len(releases) != 2 {
		t.Fatalf("%+v, %v", releases, err)
	}
	r := releases[0]
	fields := strings.Join(r.Types["Drive"], " ")
	if r.Version != "1.7.0" || r.Routes["PUT /drives/{drive_id}"] != (route{Body: "Drive"}) || r.Routes["GET /version"] != (route{Answer: "Version"}) || fields != "drive_id* parts:Part rate_limiter:RateLimiter" {
		t.Errorf("%+v", r)
	}
	if len(releases[1].Types) != 2 {
		t.Errorf("%+v", releases[1])
	}
}

// TestCheck finds each edit of what was written, without the clone.
func TestCheck(t *testing.T) {
	for name, edit := range map[string]struct {
		file     func(versions string) string
		from, to string
	}{
		"nothing":                  {strings.Clone, "1.7.0", "1.7.0"},
		"a field":                  {strings.Clone, "drive_id*", "drive_id"},
		"a version":                {strings.Clone, "1.7.0", "1.7.1"},
		"a space":                  {strings.Clone, "  ", "\t"},
		"another field of all":     {strings.Clone, `"commit"`, `"comment"`},
		"a tag":                    {sumsOf, "v1.7.0", "v1.6.0"},
		"the sum of the output":    {sumsOf, `"output": "`, `"output": "0`},
		"the reader of the output": {sumsOf, `"reader": "`, `"reader": "0`},
	} {
		_, file := written(t)
		path := edit.file(file)
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), edit.from) {
			t.Fatalf("%s: %v, %s", name, err, text)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), edit.from, edit.to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run([]string{"check", file}); (err == nil) != (name == "nothing") {
			t.Errorf("%s was edited: %v", name, err)
		}
	}
}

// TestCheckWithClone finds what only the inputs tell.
func TestCheckWithClone(t *testing.T) {
	clone, file := written(t)
	if err := run([]string{"check", file, clone}); err != nil {
		t.Error(err)
	}
	commitOf(t, clone, "v1.8.0", described+"  Error: {properties: {fault: {type: string}}}\n")
	if err := run([]string{"check", file, clone}); err == nil {
		t.Error("a tag was moved, and nothing was found")
	}
	if err := run([]string{"check", file}); err != nil {
		t.Errorf("without the clone: %v", err)
	}
	for _, args := range [][]string{nil, {"check"}, {"write", file, clone}, {"check", file, t.TempDir()}, {"check", filepath.Join(t.TempDir(), "none.json")}} {
		if err := run(args); err == nil {
			t.Errorf("%q was done", args)
		}
	}
}
