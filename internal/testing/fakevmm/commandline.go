//go:build linux

package fakevmm

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The arguments of a command line: those with a value, and those without (src/firecracker/src/main.rs@v1.12.1).
var (
	valued = []string{
		"api-sock", "config-file", "describe-snapshot", "http-api-max-payload-size", "id", "level", "log-path", "metadata", "metrics-path", "mmds-size-limit", "module",
		"parent-cpu-time-us", "seccomp-filter", "start-time-cpu-us", "start-time-us",
	}
	flags = []string{"boot-timer", "no-api", "no-seccomp", "show-level", "show-log-origin", "snapshot-version", "version"}
)

// lacking are arguments that the fake knows and does nothing for. Others that do not show in what a VMM answers are ignored.
var lacking = []string{"describe-snapshot", "help", "http-api-max-payload-size", "metadata", "mmds-size-limit", "module", "show-level", "show-log-origin", "snapshot-version"}

// parseArguments reads a command line as the real one does (src/utils/src/arg_parser.rs@v1.12.1). More are arguments without a value that the version has besides.
func parseArguments(args []string, more ...string) (given map[string]string, err error) {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	switch { // nothing else is looked at then
	case slices.Contains(args, "--help"), slices.Contains(args, "-h"):
		return map[string]string{"help": ""}, nil
	case slices.Contains(args, "--version"):
		return map[string]string{"version": ""}, nil
	}
	given = map[string]string{}
	for len(args) > 0 {
		name, long := strings.CutPrefix(args[0], "--")
		takes := slices.Contains(valued, name)
		if !long || !takes && !slices.Contains(flags, name) && !slices.Contains(more, name) {
			return nil, wrongArgument("UnexpectedArgument", name)
		}
		if _, twice := given[name]; twice {
			return nil, wrongArgument("DuplicateArgument", name)
		}
		given[name], args = "", args[1:]
		if takes && (len(args) == 0 || strings.HasPrefix(args[0], "--")) {
			return nil, wrongArgument("MissingValue", name)
		}
		if takes {
			given[name], args = args[0], args[1:]
		}
	}
	return given, checkTogether(given)
}

// checkTogether refuses arguments that need others, or don't go with others.
func checkTogether(given map[string]string) error {
	has := func(name string) bool { _, ok := given[name]; return ok }
	switch {
	case has("no-api") && !has("config-file"):
		return wrongArgument("MissingArgument", "config-file")
	case has("no-seccomp") && has("seccomp-filter"):
		return wrongArgument("ForbiddenArgument", "no-seccomp", "seccomp-filter")
	}
	return nil
}

func wrongArgument(kind string, names ...string) error {
	for i, name := range names {
		names[i] = quote(name)
	}
	return variant{"ParseArguments", told{inDebug: kind + "(" + strings.Join(names, ", ") + ")"}}
}

const idLimit = 64

// checkMachineID panics as the real one does over an id that it can't have (src/utils/src/validators.rs@v1.12.1).
func checkMachineID(id string) error {
	if len(id) < 1 || len(id) > idLimit {
		return panicked(fmt.Sprintf("Invalid instance ID: InvalidLen(%d, 1, %d)", len(id), idLimit))
	}
	for i, c := range []rune(id) {
		if c != '-' && !unicode.IsLetter(c) && !unicode.IsNumber(c) {
			return panicked(fmt.Sprintf("Invalid instance ID: InvalidChar('%c', %d)", c, i))
		}
	}
	return nil
}

// checkText panics as the real one does over a file that it has no text of.
func checkText(what string, text []byte, err error) error {
	switch {
	case err != nil:
		err = osError(err)
	case !utf8.Valid(text):
		err = errNoText
	default:
		return nil
	}
	return panicked("Unable to open or read from the " + what + ": " + debug(err))
}
