// Our threads live as long as the process, so the code that they run must stay, even when Node closes the library with
// the last worker that used it.
#pragma once

namespace hpformer::addon {

void pinLibrary();

}  // namespace hpformer::addon
