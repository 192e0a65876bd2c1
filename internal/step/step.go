// Package step runs the host side effects of a verb one by one.
//
// There is only one type: a [Sequence], which belongs to one call of one verb. [Sequence.Do] runs a step, remembers how to undo it, and puts
// it on the time line. [Sequence.End] undoes what was done, in reverse, when the verb ended with an error.
//
// # Caveats
//
// A step's record on disk is itself a step, written before what it records. Undo functions get no context: they run to their end
// also when the caller's context has ended, and what fails in them is joined to the verb's error.
package step

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Hook is called before and after each step with the point's name, "verb/step:before" or "verb/step:after". An error
// that it returns is the step's. It is how faults are injected; nil in production.
type Hook func(point string) error

// Span is one step on the time line; times are since the sequence began.
type Span struct {
	Name       string
	Begin, End time.Duration
}

// Sequence is one call of one verb. The zero value is not usable; see [Begin].
type Sequence struct {
	verb  string
	hook  Hook
	start time.Time
	spans []Span
	undos []undo
}

type undo struct {
	name string
	run  func() error
}

// Begin starts the sequence of a verb.
func Begin(verb string, hook Hook) *Sequence {
	return &Sequence{verb: verb, hook: hook, start: time.Now()}
}

// Do runs one step. Undo is remembered before do runs, since do may fail halfway: it must cope with what was not done. Nil when nothing
// is to be undone. An error is returned with the step's name.
func (s *Sequence) Do(name string, do, undoing func() error) error {
	begin := time.Since(s.start)
	if err := s.point(name, "before"); err != nil {
		return err
	}
	if undoing != nil {
		s.undos = append(s.undos, undo{name, undoing})
	}
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.spans = append(s.spans, Span{Name: name, Begin: begin, End: time.Since(s.start)})
	return s.point(name, "after")
}

func (s *Sequence) point(name, side string) error {
	if s.hook == nil {
		return nil
	}
	if err := s.hook(s.verb + "/" + name + ":" + side); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// End is deferred with the address of the verb's error. When there is one it undoes the steps in reverse, each once.
func (s *Sequence) End(err *error) {
	if *err == nil {
		return
	}
	for _, v := range slices.Backward(s.undos) {
		if failed := v.run(); failed != nil {
			*err = errors.Join(*err, fmt.Errorf("undo %s: %w", v.name, failed))
		}
	}
	s.undos = nil
}

// Spans returns the steps that were done, in order.
func (s *Sequence) Spans() []Span { return s.spans }
