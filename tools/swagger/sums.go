package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// sums say what an output was made of, so that it can be checked without that: its inputs, what read them, and itself.
type sums struct {
	Inputs []input `json:"inputs"`
	Reader string  `json:"reader"` // sha256 of read.go.
	Output string  `json:"output"` // sha256.
}

//go:embed read.go
var reader []byte

// generate reads the tags out of a clone, and returns the output and its sums, as they are written to files.
func generate(clone string, tags []string) (output, sum []byte, err error) {
	var releases []release
	s := sums{Reader: digest(reader)}
	for _, tag := range tags {
		r, in, err := read(clone, tag)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", tag, err)
		}
		releases, s.Inputs = append(releases, r), append(s.Inputs, in)
	}
	if output, err = encode(releases); err != nil {
		return nil, nil, err
	}
	s.Output = digest(output)
	sum, err = encode(s)
	return output, sum, err
}

func encode(v any) ([]byte, error) {
	text, err := json.MarshalIndent(v, "", " ")
	return append(text, '\n'), err
}

// canonical reads what encode wrote: nothing else has the same bytes.
func canonical(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	again, err := encode(v)
	if err == nil && !bytes.Equal(again, text) {
		err = errors.New("it was edited: it is not in the form that is written")
	}
	return err
}

// check says what is wrong with an output and its sums, without what they were made of.
func check(output, sum []byte) error {
	var s sums
	if err := canonical(sum, &s); err != nil {
		return fmt.Errorf("sums: %w", err)
	}
	var releases []release
	if err := canonical(output, &releases); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	if digest(output) != s.Output {
		return errors.New("output: it is not what its sums are of")
	}
	if digest(reader) != s.Reader {
		return errors.New("read.go is not what the output was made with")
	}
	if len(releases) != len(s.Inputs) {
		return fmt.Errorf("output: %d releases of %d inputs", len(releases), len(s.Inputs))
	}
	for i, r := range releases {
		if in := s.Inputs[i]; r.Version != strings.TrimPrefix(in.Tag, "v") || r.Commit != in.Commit {
			return fmt.Errorf("output: release %s of %s, and the input is %s of %s", r.Version, r.Commit, in.Tag, in.Commit)
		}
	}
	return nil
}

// checkWith makes the output again out of a clone, and compares.
func checkWith(clone string, output, sum []byte) error {
	var s sums
	if err := json.Unmarshal(sum, &s); err != nil {
		return fmt.Errorf("sums: %w", err)
	}
	var tags []string
	for _, in := range s.Inputs {
		tags = append(tags, in.Tag)
	}
	freshOutput, freshSum, err := generate(clone, tags)
	if err != nil {
		return err
	}
	if !bytes.Equal(freshSum, sum) {
		return fmt.Errorf("sums: they would be\n%s", freshSum)
	}
	if !bytes.Equal(freshOutput, output) {
		return errors.New("output: it is another one when it is made again")
	}
	return nil
}
