//go:build linux

package main

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// leastPercent is how many of the cases that the double passes the real runtime must pass.
const leastPercent = 95

// contract is what a runtime has shown of the contract, in all tests that run it: bare and jailed are both the real one.
type contract struct {
	passed map[string]bool
	left   map[string]string // Reasons, by the cases that a harness leaves out.
}

func (c *contract) add(other *contract) {
	maps.Copy(c.passed, other.passed)
	maps.Copy(c.left, other.left)
}

func (t *tally) contract(runtime string) *contract {
	if t.contracts[runtime] == nil {
		t.contracts[runtime] = &contract{passed: map[string]bool{}, left: map[string]string{}}
	}
	return t.contracts[runtime]
}

var (
	contractName = regexp.MustCompile(`^Test(Real|Lab)?Contract([^/]*)(?:/(.+))?$`)
	leftOutLine  = regexp.MustCompile(`^ +\w+\.go:\d+: left out: (.+?): (.+)\n$`) // runtimetest.Run logs it
)

// contractCase returns the runtime whose contract a test runs, and the case: both empty where it runs none, the case where it is the contract as a whole.
func contractCase(test string) (runtime, name string) {
	m := contractName.FindStringSubmatch(test)
	switch {
	case m == nil:
		return "", ""
	case m[1] != "":
		return "real", m[3]
	}
	return strings.ToLower(m[2]), m[3]
}

// caseName returns a case's name as tests have it.
func caseName(name string) string { return strings.ReplaceAll(name, " ", "_") }

func (t *tally) contractLines() []string {
	var lines, left []string
	for _, runtime := range sortedKeys(t.contracts) {
		c := t.contracts[runtime]
		lines = append(lines, fmt.Sprintf("contract: %s %d cases", runtime, len(c.passed)))
		for _, name := range sortedKeys(c.left) {
			if !c.passed[name] {
				left = append(left, fmt.Sprintf("left out by %s: %s: %s", runtime, name, c.left[name]))
			}
		}
	}
	return append(lines, left...)
}

// fallsShort says what a runtime lacks of what its model passes: each case that it leaves out without a reason, and all of them where they are too many.
func (t *tally) fallsShort(runtime, model string) []string {
	c, m := t.contract(runtime), t.contract(model)
	var problems []string
	for _, name := range sortedKeys(m.passed) {
		if !c.passed[name] && c.left[name] == "" {
			problems = append(problems, fmt.Sprintf("contract: %s does not pass %s, and nothing says why", runtime, name))
		}
	}
	if len(c.passed)*100 < len(m.passed)*leastPercent || len(c.passed) == 0 {
		problems = append(problems, fmt.Sprintf("contract: %s passes %d cases and %s %d: at least %d %% are wanted", runtime, len(c.passed), model, len(m.passed), leastPercent))
	}
	return problems
}
