// Command swagger reads Firecracker's API at the tags of releases out of a clone of its repository, and prints it as JSON: for each release its commit, the routes, and the
// fields of what goes over the wire.
//
//	go run ./swagger CLONE v1.7.0 v1.12.1 … > ../internal/testing/fakevmm/versions.json
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

type document struct {
	Paths       map[string]map[string]operation `yaml:"paths"`
	Definitions map[string]schema               `yaml:"definitions"`
}

type operation struct {
	Parameters []struct {
		In     string `yaml:"in"`
		Schema schema `yaml:"schema"`
	} `yaml:"parameters"`
	Responses map[string]struct {
		Schema schema `yaml:"schema"`
	} `yaml:"responses"`
}

type schema struct {
	Ref        string            `yaml:"$ref"`
	Type       string            `yaml:"type"`
	Required   []string          `yaml:"required"`
	Properties map[string]schema `yaml:"properties"`
	Items      *schema           `yaml:"items"`
}

// release is what is kept of one.
type release struct {
	Version string              `json:"version"`
	Commit  string              `json:"commit"`
	Routes  map[string]route    `json:"routes"` // By "PUT /drives/{drive_id}".
	Types   map[string][]string `json:"types"`  // Fields by name of the type; the required ones end in "*", the type of an object follows a colon.
}

type route struct {
	Body   string `json:"body,omitempty"`
	Answer string `json:"answer,omitempty"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "swagger:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: swagger CLONE TAG…")
	}
	var releases []release
	for _, tag := range args[1:] {
		r, err := read(args[0], tag)
		if err != nil {
			return fmt.Errorf("%s: %w", tag, err)
		}
		releases = append(releases, r)
	}
	text, err := json.MarshalIndent(releases, "", " ")
	fmt.Println(string(text))
	return err
}

func read(clone, tag string) (release, error) {
	r := release{Version: strings.TrimPrefix(tag, "v"), Routes: map[string]route{}, Types: map[string][]string{}}
	commit, err := git(clone, "rev-parse", tag+"^{commit}")
	if err != nil {
		return r, err
	}
	r.Commit = strings.TrimSpace(string(commit))
	text, err := git(clone, "show", tag+":src/firecracker/swagger/firecracker.yaml")
	if err != nil {
		return r, err
	}
	var d document
	if err := yaml.Unmarshal(text, &d); err != nil {
		return r, err
	}
	for path, operations := range d.Paths {
		for method, o := range operations {
			r.Routes[strings.ToUpper(method)+" "+path] = o.route()
		}
	}
	for name, s := range d.Definitions {
		r.Types[name] = s.fields()
	}
	return r, nil
}

func (o operation) route() (r route) {
	for _, p := range o.Parameters {
		if p.In == "body" {
			r.Body = last(p.Schema.Ref)
		}
	}
	for status, response := range o.Responses {
		if strings.HasPrefix(status, "2") {
			r.Answer = last(response.Schema.Ref)
		}
	}
	return r
}

func (s schema) fields() []string {
	fields := []string{}
	for name, property := range s.Properties {
		field := name
		for _, required := range s.Required {
			if required == name {
				field += "*"
			}
		}
		if property.Items != nil {
			property = *property.Items
		}
		if property.Ref != "" {
			field += ":" + last(property.Ref)
		}
		fields = append(fields, field)
	}
	slices.Sort(fields)
	return fields
}

func last(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

func git(clone string, args ...string) ([]byte, error) {
	return exec.Command("git", append([]string{"-C", clone}, args...)...).Output()
}
