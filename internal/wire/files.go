package wire

import (
	"encoding/base64"
	"fmt"
	"time"
)

// Paths of the requests for files.
const (
	PathFilesRead  = "/v1/files/read"  // FilesRead, Upgrade. Answered by frames Data, then Copied.
	PathFilesWrite = "/v1/files/write" // FilesWrite, Upgrade. Then frames Data and DataEnd; the answer is Copied, which may come before the end.
	PathFilesStat  = "/v1/files/stat"  // FilesStat. The answer is a File.
	PathFilesList  = "/v1/files/list"  // FilesList. The answer is a FilesListed.

	PathFilesCompare = "/v1/files/compare" // FilesWrite, Upgrade. Then as PathFilesWrite, but a tar of Heads; CopiedResult.Have is the answer.
	PathFilesEnd     = "/v1/files/end"     // FilesEnd.
)

// FeatureCopy is the requests for files, the frames Data, DataEnd and Copied, and CodeFull.
const FeatureCopy = "copy"

// FeatureFS is POST PathFilesList and FilesRead.Offset.
const FeatureFS = "fs"

// FeatureResume is copies that go on: FilesRead.From, Have and Heads, FilesWrite.ID, PathFilesCompare, PathFilesEnd, and the frame At.
const FeatureResume = "resume"

// MaxPath bounds a path, and a name in a tar, in bytes (PATH_MAX).
const MaxPath = 4096

// FilesRead is the body of POST PathFilesRead. What comes is a tar (PAX), whose names are Name for what is at the path, and Name/… for what is below it.
type FilesRead struct {
	Path    string `json:"path"` // Absolute. A symbolic link is itself, unless "/" or "/." follows.
	Name    string `json:"name,omitempty"`
	Devices bool   `json:"devices,omitempty"` // Take devices and named pipes too. Without it they are an error.
	// Raw asks for the content of a regular file instead, whatever size it claims to have.
	Raw bool `json:"raw,omitempty"`
	// Offset is where a raw content begins. Beyond the file's end there is nothing.
	Offset int64 `json:"offset,omitempty"`

	From  Position `json:"from,omitzero"`   // Where to go on.
	Have  Name     `json:"have,omitempty"`  // What is no directory is left out up to this name, in the order of Position.After.
	Heads bool     `json:"heads,omitempty"` // The content of files is left out, and their size is the record MICROVM.size.
}

// Position is how far one who takes a tar has come. Names are relative to what is copied, "." is that itself; directories come before what is in them, each in the order of its names' bytes.
type Position struct {
	After Name `json:"after,omitempty"` // All is complete up to this name.
	// File is the regular file behind it that is there in part, up to Offset, when it had that size and time. What goes on with it has the record MICROVM.offset. One that is another meanwhile
	// comes from its beginning.
	File    Name  `json:"file,omitempty"`
	Offset  int64 `json:"offset,omitempty"`
	Size    int64 `json:"size,omitempty"`
	ModTime int64 `json:"mtime_ns,omitempty"`
}

// Name is a file's name, which need not be UTF-8: base64 in JSON.
type Name string

// MarshalText returns it in base64.
func (n Name) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, []byte(n)), nil
}

// UnmarshalText reads base64. A name is at most MaxPath bytes.
func (n *Name) UnmarshalText(text []byte) error {
	name, err := base64.StdEncoding.AppendDecode(nil, text)
	if err == nil && len(name) > MaxPath {
		err = fmt.Errorf("a name of %d bytes", len(name))
	}
	*n = Name(name)
	return err
}

// FilesWrite is the body of POST PathFilesWrite. What comes is a tar.
type FilesWrite struct {
	Path string `json:"path"` // Absolute.
	// Tar unpacks it into the directory Path, which must be there. Without it the tar is that of a FilesRead, and Path is taken as cp(1) does: an existing directory is where
	// the copy goes to, under Name; anything else is the copy's name.
	Tar      bool   `json:"tar,omitempty"`
	Name     string `json:"name,omitempty"`
	Contents bool   `json:"contents,omitempty"` // The content of a directory goes into Path, without Name.
	Exact    bool   `json:"exact,omitempty"`    // Path is the copy's name, whatever is there.
	Owners   bool   `json:"owners,omitempty"`   // Keep numeric owners. Without it all is the agent's.
	Setuid   bool   `json:"setuid,omitempty"`   // Keep set-user-ID and set-group-ID bits and capabilities.
	Devices  bool   `json:"devices,omitempty"`  // Make devices and named pipes. Without it they are an error.
	// ID, of the host's choice, makes the copy one that outlives its connection: see ValidID. Each connection begins with a frame At, or with Copied when the copy has ended meanwhile, and what is
	// sent begins there.
	ID      string `json:"id,omitempty"`
	Attach  bool   `json:"attach,omitempty"`  // It must be there: CodeNotFound.
	Attempt uint64 `json:"attempt,omitempty"` // Counts its connections: one that comes late takes nothing from a later one.
}

// FilesEnd is the body of POST PathFilesEnd: nobody goes on with the copy.
type FilesEnd struct {
	ID string `json:"id"`
}

// FilesStat is the body of POST PathFilesStat.
type FilesStat struct {
	Path   string `json:"path"`
	Follow bool   `json:"follow,omitempty"` // Of a symbolic link, what it leads to.
}

// FilesList is the body of POST PathFilesList: what is in a directory, page by page.
type FilesList struct {
	Path  string `json:"path"`            // Absolute. Symbolic links are followed.
	After string `json:"after,omitempty"` // FilesListed.Next of the page before.
}

// FilesListed is one page, in the order of names' bytes. Names that are not UTF-8 are left out.
type FilesListed struct {
	Files []File `json:"files"`          // Symbolic links are themselves, without Link.
	Next  string `json:"next,omitempty"` // There may be more after it: ask with it as After.
}

// File is what a guest says of a file.
type File struct {
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	Mode    uint32 `json:"mode"`     // As Go's fs.FileMode has it.
	ModTime int64  `json:"mtime_ns"` // Since 1970.
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	Link    string `json:"link,omitempty"` // Where a symbolic link leads to.
}

// Time returns the time of the last change.
func (f File) Time() time.Time { return time.Unix(0, f.ModTime) }

// CopiedResult is the payload of a frame Copied: how far the agent came.
type CopiedResult struct {
	Files int64  `json:"files"` // That are complete.
	Bytes int64  `json:"bytes"` // Of their content.
	File  string `json:"file,omitempty"`
	Have  Name   `json:"have,omitempty"`  // Of PathFilesCompare: up to which name all that is no directory is there.
	Error *Error `json:"error,omitempty"` // Why it went no further.
}
