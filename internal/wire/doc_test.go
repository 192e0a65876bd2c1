package wire

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestTheDocumentNamesAll finds whatever goes over the wire in docs/agent-protocol.md.
func TestTheDocumentNamesAll(t *testing.T) {
	text, err := os.ReadFile("../../docs/agent-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{PathHealth, PathExec, PathProcesses, PathSignal, PathDial, PathListen, PathAccept, PathEnv, PathSecrets, PathClock, PathEntropy, PathHostname, PathFreeze, PathThaw, PathRenew, PathSync, PathShutdown, PathFilesRead, PathFilesWrite, PathFilesStat, PathFilesList, PathFilesCompare, PathFilesEnd, PathFilesWatch, PathEvents, Upgrade, HeaderStdin, HeaderAttached}
	names = append(names, CodeInvalid, CodeNotFound, CodeDenied, CodeBusy, CodeExists, CodeGone, CodeRefused, CodeNoAnswer, CodeFull, CodeInternal)
	names = append(names, FileWatching, FileCreated, FileWritten, FileRemoved, FileRenamed, FileAttributes, FileLost, EventOOMKill, EventDiskLow, EventDiskFull, EventDiskOK)
	names = append(names, Features()...)
	for _, message := range []any{Health{}, Exec{}, TTY{}, Started{}, Processes{}, Process{}, Attached{}, Signal{}, Freeze{}, Thaw{}, Renew{}, Renewed{}, RenewedItem{}, Exit{}, Usage{}, Error{},
		FilesRead{}, FilesWrite{}, FilesStat{}, FilesList{}, FilesListed{}, File{}, CopiedResult{}, Position{}, FilesEnd{}, FilesWatch{}, FileEvent{}, Subscribe{}, SystemEvent{}, OOMKill{}, Disk{}} {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(message)) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			names = append(names, name)
		}
	}
	words := strings.FieldsFunc(string(text), func(r rune) bool { return strings.ContainsRune(" \n`\"|.,:;{}()", r) })
	said := make(map[string]bool, len(words))
	for _, word := range words {
		said[word] = true
	}
	for _, name := range names {
		if !said[name] {
			t.Errorf("the document does not name %q", name)
		}
	}
	for kind := Stdin; kind <= lastKind; kind++ {
		if !said[fmt.Sprint(byte(kind))] {
			t.Errorf("the document does not name frame %d", kind)
		}
	}
}
