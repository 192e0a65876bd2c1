package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os/exec"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// swaggerPath is where the API is described in Firecracker's repository.
const swaggerPath = "src/firecracker/swagger/firecracker.yaml"

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

// input is what a release was read out of.
type input struct {
	Tag    string `json:"tag"`
	Commit string `json:"commit"`
	SHA256 string `json:"sha256"` // Of the file at swaggerPath.
}

func read(clone, tag string) (release, input, error) {
	r := release{Version: strings.TrimPrefix(tag, "v"), Routes: map[string]route{}, Types: map[string][]string{}}
	commit, err := git(clone, "rev-parse", tag+"^{commit}")
	if err != nil {
		return r, input{}, err
	}
	r.Commit = strings.TrimSpace(string(commit))
	text, err := git(clone, "show", tag+":"+swaggerPath)
	if err != nil {
		return r, input{}, err
	}
	var d document
	if err := yaml.Unmarshal(text, &d); err != nil {
		return r, input{}, err
	}
	for path, operations := range d.Paths {
		for method, o := range operations {
			r.Routes[strings.ToUpper(method)+" "+path] = o.route()
		}
	}
	for name, s := range d.Definitions {
		r.Types[name] = s.fields()
	}
	return r, input{tag, r.Commit, digest(text)}, nil
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
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
		if slices.Contains(s.Required, name) {
			field += "*"
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
