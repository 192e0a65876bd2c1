// Command swagger reads Firecracker's API at the tags of releases out of a clone of its repository, and writes it as JSON: for each release its commit, the routes, and the
// fields of what goes over the wire. Beside it go the sums of what it was made of, by which it can be checked without a clone.
//
//	go run ./swagger write ../internal/testing/fakevmm/versions.json CLONE v1.7.0 v1.12.1 …
//	go run ./swagger check ../internal/testing/fakevmm/versions.json [CLONE]
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "swagger:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) > 3 && args[0] == "write":
		output, sum, err := generate(args[2], args[3:])
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(args[1], output, 0o644), os.WriteFile(sumsOf(args[1]), sum, 0o644))
	case (len(args) == 2 || len(args) == 3) && args[0] == "check":
		output, err1 := os.ReadFile(args[1])
		sum, err2 := os.ReadFile(sumsOf(args[1]))
		err := errors.Join(err1, err2)
		if err == nil {
			err = check(output, sum)
		}
		if err == nil && len(args) == 3 {
			err = checkWith(args[2], output, sum)
		}
		if err != nil {
			return fmt.Errorf("%s: %w (make it again: swagger write)", args[1], err)
		}
		return nil
	}
	return errors.New("usage: swagger write FILE CLONE TAG… | swagger check FILE [CLONE]")
}

// sumsOf returns where the sums of an output are.
func sumsOf(output string) string {
	return strings.TrimSuffix(output, filepath.Ext(output)) + ".sums.json"
}
