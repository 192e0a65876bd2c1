//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// converter is a test2json that makes events of a test binary's output.
type converter struct {
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	total *tally // Gets what own has, in the end.
	own   *tally
	done  chan struct{}
}

// test2json is the program's path: `go tool` takes longer to find it than many tests take.
type test2json string

func findTest2json(ctx context.Context) (test2json, error) {
	out, err := exec.CommandContext(ctx, "go", "tool", "-n", "test2json").Output()
	if err != nil {
		return "", fmt.Errorf("go tool -n test2json: %w", err)
	}
	return test2json(strings.TrimSpace(string(out))), nil
}

func (tool test2json) convert(ctx context.Context, t *tally, name string) (*converter, error) {
	cmd := exec.CommandContext(ctx, string(tool), "-t", "-p", name)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c := &converter{name: name, cmd: cmd, in: in, total: t, own: newTally(), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.own.read(out)
	}()
	return c, nil
}

// mark is what test2json knows a test binary's own lines by.
const mark = "\x16"

// end ends the output of a binary that ended with a status. What is no success is none to test2json either, whatever the binary has said before: a leak is found when
// the tests have passed.
func (c *converter) end(status int) error {
	if status != 0 {
		fmt.Fprintf(c.in, "\nexit status %d\n%sFAIL\t%s\n", status, mark, c.name)
	}
	c.in.Close()
	<-c.done
	err := c.cmd.Wait()
	c.total.add(c.own)
	switch {
	case err != nil:
		return fmt.Errorf("%s: test2json: %w", c.name, err)
	case status != 0:
		return fmt.Errorf("%s ended with status %d", c.name, status)
	}
	return nil
}

// discard ends the output of a binary whose host stood still: it counts for nothing, as the binary runs once more. It is an error if tests had failed by then: none of
// them is run until it passes.
func (c *converter) discard() error {
	c.in.Close()
	<-c.done
	c.cmd.Wait()
	if c.own.failed > 0 {
		return fmt.Errorf("%s: %d tests had failed when its host stood still", c.name, c.own.failed)
	}
	return nil
}
