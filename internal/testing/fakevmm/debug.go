//go:build linux

package fakevmm

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"unicode"
)

// told is a refusal in two languages: the API's text, and Rust's Debug of the same error, which is what the program says on standard error.
type told struct{ text, inDebug string }

func (t told) Error() string { return t.text }
func (t told) debug() string { return t.inDebug }

// of completes both texts with a cause.
func (t told) of(err error) told {
	return told{fmt.Sprintf(t.text, err), fmt.Sprintf(t.inDebug, debug(err))}
}

// variant is an error that holds another, by the name of its enum's variant.
type variant struct {
	name string
	err  error
}

func (v variant) Error() string { return v.debug() }
func (v variant) debug() string { return v.name + "(" + debug(v.err) + ")" }

// debug returns an error as Rust's Debug has it. One of no known kind is a text.
func debug(err error) string {
	if known, ok := err.(interface{ debug() string }); ok {
		return known.debug()
	}
	return quote(err.Error())
}

// hostError is an error of the operating system as Rust's standard library has it, in the words of musl.
type hostError syscall.Errno

// hostErrors are the kinds and words of errors that files and sockets give.
var hostErrors = map[hostError]struct{ kind, message string }{
	hostError(syscall.EPERM):        {"PermissionDenied", "Operation not permitted"},
	hostError(syscall.ENOENT):       {"NotFound", "No such file or directory"},
	hostError(syscall.ENXIO):        {"Uncategorized", "No such device or address"},
	hostError(syscall.EACCES):       {"PermissionDenied", "Permission denied"},
	hostError(syscall.EBUSY):        {"ResourceBusy", "Resource busy"},
	hostError(syscall.ENOTDIR):      {"NotADirectory", "Not a directory"},
	hostError(syscall.EISDIR):       {"IsADirectory", "Is a directory"},
	hostError(syscall.EINVAL):       {"InvalidInput", "Invalid argument"},
	hostError(syscall.EMFILE):       {"Uncategorized", "No file descriptors available"},
	hostError(syscall.ETXTBSY):      {"ExecutableFileBusy", "Text file busy"},
	hostError(syscall.EROFS):        {"ReadOnlyFilesystem", "Read-only file system"},
	hostError(syscall.ENAMETOOLONG): {"InvalidFilename", "Filename too long"},
	hostError(syscall.ELOOP):        {"FilesystemLoop", "Symbolic link loop"},
	hostError(syscall.EADDRINUSE):   {"AddrInUse", "Address in use"},
}

func (e hostError) words() (kind, message string) {
	if known, ok := hostErrors[e]; ok {
		return known.kind, known.message
	}
	return "Uncategorized", syscall.Errno(e).Error()
}

func (e hostError) Error() string {
	_, message := e.words()
	return fmt.Sprintf("%s (os error %d)", message, int(e))
}

func (e hostError) debug() string {
	kind, message := e.words()
	return fmt.Sprintf("Os { code: %d, kind: %s, message: %s }", int(e), kind, quote(message))
}

// osError puts an error of the operating system as Rust does.
func osError(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return hostError(errno)
	}
	return err
}

// rustError is an error that Rust's standard library makes itself.
type rustError struct{ kind, message string }

func (e rustError) Error() string { return e.message }
func (e rustError) debug() string {
	return fmt.Sprintf("Error { kind: %s, message: %s }", e.kind, quote(e.message))
}

const socketPathLimit = 107

// The errors that it makes of paths that are too long for a socket and of files that are no text.
var (
	errSocketPath = rustError{"InvalidInput", "path must be shorter than SUN_LEN"}
	errNoText     = rustError{"InvalidData", "stream did not contain valid UTF-8"}
)

// quote returns a text as Rust's Debug has it.
func quote(text string) string {
	var quoted strings.Builder
	quoted.WriteByte('"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			quoted.WriteString(`\` + string(c))
		case c == '\n':
			quoted.WriteString(`\n`)
		case c == '\r':
			quoted.WriteString(`\r`)
		case c == '\t':
			quoted.WriteString(`\t`)
		case c == 0:
			quoted.WriteString(`\0`)
		case !unicode.IsPrint(c):
			fmt.Fprintf(&quoted, `\u{%x}`, c)
		default:
			quoted.WriteRune(c)
		}
	}
	quoted.WriteByte('"')
	return quoted.String()
}
